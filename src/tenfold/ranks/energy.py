"""Ranks from the singular values of each weight alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenfold.core.arrays import Array, namespace
from tenfold.core.errors import OptionError
from tenfold.core.linalg import rank_for_tolerance
from tenfold.core.network import Axis
from tenfold.ranks.base import Allotment, Budget, Candidate, RankRule, allowed, rules, total

Spectra = Mapping[str, Mapping[Axis, list[Array]]]


@rules.register("energy")
@dataclass(frozen=True)
class Energy(RankRule):
    """For every bond the smallest rank that keeps the fraction `keep` of the squared singular values.

    With a budget, the largest fraction up to `keep` whose ranks are within it. For CP, whose bond no matrix
    shows, the largest of the modes' ranks is taken, which is a lower bound of the rank at that energy. Sites
    that would store no less than dense stay dense.

    >>> import numpy as np
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
        limit = allowed(candidates, budget)
        spectra = {c.name: {b: c.spectra(b) for b in c.full.bonds} for c in candidates}
        ranks = self._at(candidates, spectra, self.keep)
        if limit is None or total(candidates, ranks) <= limit:
            return ranks
        low, high = 0.0, self.keep
        for _ in range(50):
            middle = (low + high) / 2
            fits = total(candidates, self._at(candidates, spectra, middle)) <= limit
            low, high = (middle, high) if fits else (low, middle)
        return self._at(candidates, spectra, low)

    @staticmethod
    def _at(candidates: Sequence[Candidate], spectra: Spectra, keep: float) -> dict[str, Allotment]:
        ranks: dict[str, Allotment] = {}
        for c in candidates:
            chosen = {b: max(rank_keeping(s, keep) for s in spectra[c.name][b]) for b in c.full.bonds}
            ranks[c.name] = c.paying(chosen) if c.lowest < c.dense else None
        return ranks


def rank_keeping(singular_values: Array, keep: float) -> int:
    """The smallest rank that keeps the fraction `keep` of the energy."""
    whole = float(namespace(singular_values).linalg.vector_norm(singular_values))
    return rank_for_tolerance(singular_values, max(0.0, 1 - keep) ** 0.5 * whole)
