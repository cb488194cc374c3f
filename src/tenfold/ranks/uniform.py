"""The same fraction kept at every site."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.ranks.base import RankRule, allowed, by_site, required, rules, total
from tenfold.ranks.budget import Budget
from tenfold.ranks.candidate import Allotment, Candidate


@rules.register("uniform")
@dataclass(frozen=True)
class Uniform(RankRule):
    """Every site keeps the budget's fraction of what it costs.

    What a site cannot use, because a rank is a whole number, goes to the next larger one, so that the total
    ends just below the budget. Where even ranks of 1 cost more than a site's share, the others give way. Of
    several candidates for a site, the first is taken.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> site = Candidate("fc.weight", LowRank, (20, 30), (), lambda: np.zeros((20, 30)))
    >>> Uniform()([site], Budget(params=0.5))
    {'fc.weight': {'R': 6}}
    """

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks just within the budget."""
        terms = required(budget, "uniform")
        firsts = [group[0] for group in by_site(candidates).values()]
        limit = allowed(firsts, terms)
        dense = sum(c.cost(None, terms.unit) for c in firsts)
        share = limit / dense if dense else 1.0
        ranks = self._dealt(firsts, share, terms)
        low, high = 0.0, share
        while total(firsts, ranks, terms.unit) > limit or (low > 0 and high - low > 1e-6):
            middle = (low + high) / 2
            dealt = self._dealt(firsts, middle, terms)
            if total(firsts, dealt, terms.unit) <= limit:
                low, ranks = middle, dealt
            else:
                high = middle
        return dict.fromkeys(c.name for c in candidates) | self._filled(firsts, ranks, limit, terms)

    @staticmethod
    def _filled(
        candidates: Sequence[Candidate], ranks: dict[str, Allotment], limit: int, terms: Budget
    ) -> dict[str, Allotment]:
        """What is left in the end goes to the largest site that can use it, then to the next."""
        spare = limit - total(candidates, ranks, terms.unit)
        filled = {c.name: ranks[c.name] for c in candidates}
        for c in sorted(candidates, key=lambda c: (-c.cost(None, terms.unit), c.name)):
            if filled[c.name] is not None:
                now = c.cost(filled[c.name], terms.unit)
                more = c.within(now + spare, terms)
                spare -= c.cost(more, terms.unit) - now
                filled[c.name] = more
        return filled

    @staticmethod
    def _dealt(candidates: Sequence[Candidate], share: float, terms: Budget) -> dict[str, Allotment]:
        """Each site its share, and what the smaller ones left."""
        ranks: dict[str, Allotment] = {}
        carry = 0.0
        for c in sorted(candidates, key=lambda c: (c.cost(None, terms.unit), c.name)):
            allowance = share * c.cost(None, terms.unit) + carry
            ranks[c.name] = c.within(int(allowance + 1e-9), terms)
            carry = allowance - c.cost(ranks[c.name], terms.unit)
        return ranks
