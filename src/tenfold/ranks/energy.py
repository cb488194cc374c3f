"""Ranks from the singular values of each weight alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tenfold.core.errors import OptionError
from tenfold.core.linalg import rank_for_tolerance
from tenfold.core.network import Axis
from tenfold.ranks.base import RankRule, rules
from tenfold.ranks.budget import EVERYTHING, Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.spectra import Spectrum
from tenfold.ranks.threshold import met


@rules.register("energy")
@dataclass(frozen=True)
class Energy(RankRule):
    """For every bond the smallest rank that keeps the fraction `keep` of the squared singular values.

    With a budget, the largest fraction up to `keep` whose ranks are within it. For CP, whose bond no matrix
    shows, the largest of the modes' ranks is taken, which is a lower bound of the rank at that energy. Sites
    that would store no less than dense stay dense. Of several candidates for a site, the one that costs
    least is taken.

    >>> from tenfold.formats import LowRank
    >>> site = Candidate("fc.weight", LowRank, (8, 9), (), lambda: np.eye(8, 9) * np.arange(8.0)[:, None])
    >>> Energy(0.9)([site], None)
    {'fc.weight': None}
    >>> Energy(0.6)([site], None)
    {'fc.weight': {'R': 2}}
    """

    keep: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise OptionError(f"keep came as {self.keep}.", "Give the fraction of the energy, in (0, 1].")

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks at the energy `keep`, or at the largest one within the budget."""
        return met(candidates, budget or EVERYTHING, ranks_keeping, wanted=self.keep, spared=0.0)


def ranks_keeping(candidate: Candidate, keep: float) -> Mapping[Axis, int]:
    """For every bond the smallest rank that keeps the fraction `keep` of the energy."""
    bonds = candidate.full.bonds
    return {b: max(rank_keeping(s, keep) for s in candidate.spectra(b)) for b in bonds}


def rank_keeping(spectrum: Spectrum, keep: float) -> int:
    """The smallest rank that keeps the fraction `keep` of the energy.

    >>> rank_keeping(np.array([2.0, 1.0, 1.0]), 0.6), rank_keeping(np.array([2.0, 1.0, 1.0]), 0.7)
    (1, 2)
    """
    return rank_for_tolerance(spectrum, max(0.0, 1 - keep) ** 0.5 * float(np.linalg.norm(spectrum)))
