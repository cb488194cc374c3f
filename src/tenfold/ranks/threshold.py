"""Rules that turn one number until the budget is met: at every site, the candidate that is cheapest there."""

from collections.abc import Callable, Mapping, Sequence

from tenfold.core.network import Axis
from tenfold.ranks.base import allowed, by_site, floors, total
from tenfold.ranks.budget import Budget
from tenfold.ranks.candidate import Allotment, Candidate

Wish = Callable[[Candidate, float], Mapping[Axis, int]]
"""The ranks that a candidate should have where the number stands."""


def met(
    candidates: Sequence[Candidate],
    budget: Budget,
    wish: Wish,
    wanted: float,
    spared: float,
    *,
    floor: float = 0.0,
) -> dict[str, Allotment]:
    """The ranks at the number closest to `wanted` that is within the budget; at `spared`, all are the least.

    Raises:
        BudgetError: if ranks of 1 cost more than the budget.
    """
    limit, least = allowed(candidates, budget), floors(candidates, budget, floor)

    def at(number: float) -> dict[str, Allotment]:
        return cheapest(candidates, budget, lambda c: wish(c, number), least)

    def fits(number: float) -> bool:
        return total(candidates, at(number), budget.unit) <= limit

    if fits(wanted):
        return at(wanted)
    good, bad = spared, wanted
    for _ in range(50):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return at(good)


def cheapest(
    candidates: Sequence[Candidate],
    budget: Budget,
    wish: Callable[[Candidate], Mapping[Axis, int]],
    least: Mapping[str, int],
) -> dict[str, Allotment]:
    """At every site the candidate whose wish costs least, raised to the site's floor; None for the others."""
    ranks: dict[str, Allotment] = dict.fromkeys(c.name for c in candidates)
    for site, group in by_site(candidates).items():
        wishes = [(c, c.paying(wish(c), budget)) for c in group]
        chosen, found = min(wishes, key=lambda pair: pair[0].cost(pair[1], budget.unit))
        ranks[chosen.name] = _raised(chosen, found, least[site], budget)
    return ranks


def _raised(candidate: Candidate, ranks: Allotment, least: int, budget: Budget) -> Allotment:
    if candidate.cost(ranks, budget.unit) >= least:
        return ranks
    options = (ranks, candidate.within(least, budget))
    return max(options, key=lambda option: candidate.cost(option, budget.unit))
