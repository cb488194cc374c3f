"""The same fraction kept at every site."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.core.errors import BudgetError
from tenfold.ranks.base import Allotment, Budget, Candidate, RankRule, allowed, rules, total


@rules.register("uniform")
@dataclass(frozen=True)
class Uniform(RankRule):
    """Every site keeps the budget's fraction of its elements.

    What a site cannot use, because a rank is a whole number, goes to the next larger one, so that the total
    ends just below the budget. Where even ranks of 1 store more than a site's share, the others give way.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> site = Candidate("fc.weight", LowRank, (20, 30), (), lambda: np.zeros((20, 30)))
    >>> Uniform()([site], Budget(params=0.5))
    {'fc.weight': {'R': 6}}
    """

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks just within the budget."""
        limit = allowed(candidates, budget)
        if limit is None:
            raise BudgetError("the uniform rule came without a budget.", "Give one: Budget(params=0.25).")
        dense = sum(c.dense for c in candidates)
        share = limit / dense if dense else 1.0
        ranks = self._dealt(candidates, share)
        low, high = 0.0, share
        while total(candidates, ranks) > limit or (low > 0 and high - low > 1e-6):
            middle = (low + high) / 2
            dealt = self._dealt(candidates, middle)
            if total(candidates, dealt) <= limit:
                low, ranks = middle, dealt
            else:
                high = middle
        return self._filled(candidates, ranks, limit)

    @staticmethod
    def _filled(
        candidates: Sequence[Candidate], ranks: dict[str, Allotment], limit: int
    ) -> dict[str, Allotment]:
        """What is left in the end goes to the largest site that can use it, then to the next."""
        spare = limit - total(candidates, ranks)
        filled = {c.name: ranks[c.name] for c in candidates}
        for c in sorted(candidates, key=lambda c: (-c.dense, c.name)):
            if filled[c.name] is not None:
                more = c.within(c.cost(filled[c.name]) + spare)
                spare -= c.cost(more) - c.cost(filled[c.name])
                filled[c.name] = more
        return filled

    @staticmethod
    def _dealt(candidates: Sequence[Candidate], share: float) -> dict[str, Allotment]:
        """Each site its share, and what the smaller ones left."""
        ranks: dict[str, Allotment] = {}
        carry = 0.0
        for c in sorted(candidates, key=lambda c: (c.dense, c.name)):
            allowance = share * c.dense + carry
            ranks[c.name] = c.within(int(allowance + 1e-9))
            carry = allowance - c.cost(ranks[c.name])
        return ranks
