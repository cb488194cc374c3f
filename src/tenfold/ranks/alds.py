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
    do not matter. Of several candidates for a site, foldings or slicings for instance, the one that costs
    least at t is taken. The source alternates between t and these choices from random starts; as the choice
    at a given t is known, bisection on t alone finds the optimum of both. Every site keeps 0.6 of its
    uniform share unless the budget has another floor.

    Source: Liebenwein et al., NeurIPS 2021, arXiv:2107.11442, algorithm 1.

    >>> from tenfold.formats import LowRank
    >>> flat, steep = np.diag(1 - np.arange(20.0) / 20), np.diag(0.5 ** np.arange(20.0))
    >>> weights = {"flat": flat, "steep": steep}
    >>> sites = [Candidate(n, LowRank, (20, 20), (), lambda x=x: x) for n, x in weights.items()]
    >>> ALDS()(sites, Budget(params=0.5, floor=0))
    {'flat': {'R': 9}, 'steep': {'R': 1}}
    """

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks within the budget."""
        return met(candidates, required(budget, "alds"), ranks_at, wanted=0.0, spared=1.0, floor=FLOOR)


def ranks_at(candidate: Candidate, threshold: float) -> Mapping[Axis, int]:
    """For every bond the smallest rank whose relative error is at most the threshold."""
    spectra = {b: candidate.spectra(b) for b in candidate.full.bonds}
    return {b: max(max(1, int(np.sum(s > threshold * s[0]))) for s in found) for b, found in spectra.items()}
