"""Ranks of the least worst relative error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tenfold.core.network import Axis
from tenfold.ranks.base import FLOOR, RankRule, required, rules
from tenfold.ranks.budget import Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.threshold import met


@rules.register("alds")
@dataclass(frozen=True)
class ALDS(RankRule):
    """The least t such that every bond of every site has a relative error σ_{R+1} / σ_1 of at most t.

    The errors are those of operators: the largest that any one input can see. Scales of weights therefore
    do not matter. For a matrix in k slices it is max_s σ_{R+1}(W_s) / σ_1(W), with W the whole matrix, as in
    the authors' program. That bounds the error of the whole from below; with `upper` it is sqrt(k) times
    that, as in their theorem, which bounds it from above. The first takes many thin slices, and needs the
    tuning that the source does; the second loses less before it.

    Of several candidates for a site, foldings or slicings for instance, the one that costs least at t is
    taken. The source alternates between t and these choices from random starts; as the sites fall apart at
    a given t, and need less the larger it is, bisection on t alone finds the optimum of both. Every site
    keeps 0.8 of its uniform share unless the budget has another floor.

    Source: Liebenwein et al., NeurIPS 2021, arXiv:2107.11442, algorithm 1.

    >>> from tenfold.formats import LowRank
    >>> flat, steep = np.diag(1 - np.arange(20.0) / 20), np.diag(0.5 ** np.arange(20.0))
    >>> weights = {"flat": flat, "steep": steep}
    >>> sites = [Candidate(n, LowRank, (20, 20), (), lambda x=x: x) for n, x in weights.items()]
    >>> ALDS()(sites, Budget(params=0.5, floor=0))
    {'flat': {'R': 9}, 'steep': {'R': 1}}
    """

    upper: bool = False

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks within the budget."""
        most = max((self._factor(c) for c in candidates), default=1.0)
        return met(candidates, required(budget, "alds"), self._wish, wanted=0.0, spared=most, floor=FLOOR)

    def _wish(self, candidate: Candidate, threshold: float) -> Mapping[Axis, int]:
        return ranks_at(candidate, threshold / self._factor(candidate))

    def _factor(self, candidate: Candidate) -> float:
        network = candidate.full
        return network.product(network.slices) ** 0.5 if self.upper else 1.0


def ranks_at(candidate: Candidate, threshold: float) -> Mapping[Axis, int]:
    """For every bond the smallest rank whose relative error is at most the threshold."""
    return {
        b: max(max(1, int(np.sum(s > threshold * whole))) for s, whole in candidate.operators(b))
        for b in candidate.full.bonds
    }
