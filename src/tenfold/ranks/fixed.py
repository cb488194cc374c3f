"""Ranks that the user gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.core.errors import BudgetError, OptionError, SelectionError
from tenfold.core.network import Axis
from tenfold.formats import Ranks
from tenfold.ranks.base import RankRule, allowed, by_site, rules, total
from tenfold.ranks.budget import EVERYTHING, STORED, Budget, noun
from tenfold.ranks.candidate import Allotment, Candidate


@rules.register("fixed")
@dataclass(frozen=True)
class Fixed(RankRule):
    """The same ranks for every site, or candidate name -> ranks; one without any, or with None, stays dense.

    A cap and a multiple of the budget cut the ranks too. Of several candidates for a site, the first one
    with ranks is taken.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> site = Candidate("fc.weight", LowRank, (20, 30), (), lambda: np.zeros((20, 30)))
    >>> Fixed(4)([site], None)
    {'fc.weight': {'R': 4}}
    """

    ranks: Ranks | Mapping[str, Any]

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks cut to what their bonds can carry; raises BudgetError if they cost more than the budget."""
        terms = budget or EVERYTHING
        if isinstance(self.ranks, Mapping) and (unknown := set(self.ranks) - {c.name for c in candidates}):
            sites = ", ".join(c.name for c in candidates)
            raise SelectionError(
                f"ranks are given for {sorted(unknown)}, which are no sites.", f"Sites: {sites}."
            )
        chosen = self._chosen(candidates, terms)
        limit, cost = allowed(candidates, terms), total(candidates, chosen, terms.unit)
        if cost > limit:
            verb = "store" if terms.unit in STORED else "take"
            problem = f"the ranks {verb} {cost:,} {noun(terms.unit)}, the budget is {limit:,}."
            raise BudgetError(problem, "Lower the ranks.")
        return chosen

    def _chosen(self, candidates: Sequence[Candidate], terms: Budget) -> dict[str, Allotment]:
        chosen: dict[str, Allotment] = dict.fromkeys(c.name for c in candidates)
        for group in by_site(candidates).values():
            named = ((c.name, self._for(c, terms)) for c in group)
            name, ranks = next((pair for pair in named if pair[1] is not None), (group[0].name, None))
            chosen[name] = ranks
        return chosen

    def _for(self, candidate: Candidate, terms: Budget) -> Allotment:
        ranks = self.ranks.get(candidate.name) if isinstance(self.ranks, Mapping) else self.ranks
        if ranks is None:
            return None
        named = checked(candidate.name, candidate.format.normalised(candidate.shape, ranks))
        return candidate.paying({b: r for b, r in named.items() if b in candidate.full.bonds}, terms)


def checked(name: str, ranks: Mapping[Axis, int]) -> Mapping[Axis, int]:
    """The ranks, if all are 1 at least; raises OptionError otherwise."""
    if low := {bond: rank for bond, rank in ranks.items() if rank < 1}:
        raise OptionError(f"'{name}' is given the ranks {low}.", "Give ranks from 1, or None to stay dense.")
    return ranks
