"""Ranks that the user gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.core.errors import BudgetError, SelectionError
from tenfold.formats import Ranks
from tenfold.ranks.base import Allotment, Budget, Candidate, RankRule, allowed, rules, total


@rules.register("fixed")
@dataclass(frozen=True)
class Fixed(RankRule):
    """The same ranks for every site, or site name -> ranks; a site without any, or with None, stays dense.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> site = Candidate("fc.weight", LowRank, (20, 30), (), lambda: np.zeros((20, 30)))
    >>> Fixed(4)([site], None)
    {'fc.weight': {'R': 4}}
    """

    ranks: Ranks | Mapping[str, Any]

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks cut to what their bonds can carry; raises BudgetError if they store more than the budget."""
        chosen = {c.name: self._for(c) for c in candidates}
        if isinstance(self.ranks, Mapping) and (unknown := sorted(set(self.ranks) - set(chosen))):
            sites = ", ".join(chosen)
            raise SelectionError(f"ranks are given for {unknown}, which are no sites.", f"Sites: {sites}.")
        limit, stored = allowed(candidates, budget), total(candidates, chosen)
        if limit is not None and stored > limit:
            problem = f"the ranks store {stored:,} elements, the budget is {limit:,}."
            raise BudgetError(problem, "Lower the ranks.")
        return chosen

    def _for(self, candidate: Candidate) -> Allotment:
        ranks = self.ranks.get(candidate.name) if isinstance(self.ranks, Mapping) else self.ranks
        if ranks is None:
            return None
        named = candidate.format.normalised(candidate.shape, ranks)
        return candidate.paying({b: r for b, r in named.items() if b in candidate.full.bonds})
