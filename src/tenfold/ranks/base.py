"""The interface of the rules, and the sums that they share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from tenfold.core.errors import BudgetError, SelectionError
from tenfold.core.registry import Registry
from tenfold.ranks.budget import STORED, AnyUnit, Budget, noun
from tenfold.ranks.candidate import Allotment, Candidate

FLOOR = 0.8
"""The floor of the rules that compare sites, unless the budget gives one."""


class RankRule(ABC):
    """Base class of the rules; concrete ones are frozen dataclasses of their options."""

    @abstractmethod
    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks for every candidate by name, None for those that are not used: their site stays dense, or has
        another candidate. A site has one that is used at most; `winners` finds it.

        Raises:
            BudgetError: if the budget cannot be met; it says the smallest that can.
        """


rules: Registry[type[RankRule]] = Registry("rank rule")
"""The registered rules; `rules["uniform"]` is a class."""


def by_site(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Site -> its candidates, in order; raises SelectionError if two candidates have one name."""
    names = [c.name for c in candidates]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise SelectionError(f"several candidates are called {twice}.", "Name each, and name their `site`.")
    sites: dict[str, list[Candidate]] = {}
    for c in candidates:
        sites.setdefault(c.place, []).append(c)
    return sites


def winners(
    candidates: Sequence[Candidate], ranks: Mapping[str, Allotment]
) -> dict[str, tuple[Candidate, Allotment]]:
    """Site -> the candidate that is used there and its ranks; where the site stays dense, the first and None.

    >>> from tenfold.formats import CP, LowRank
    >>> wide = Candidate("wide", LowRank, (8, 12), (), lambda: None, site="conv.weight")
    >>> fine = Candidate("fine", CP, (8, 3, 4), (), lambda: None, site="conv.weight")
    >>> chosen, found = winners([wide, fine], {"wide": None, "fine": {"R": 2}})["conv.weight"]
    >>> chosen.name, found
    ('fine', {'R': 2})
    """
    sites = by_site(candidates)
    used = {s: next((c for c in group if ranks[c.name] is not None), group[0]) for s, group in sites.items()}
    return {s: (c, ranks[c.name]) for s, c in used.items()}


def total(candidates: Sequence[Candidate], ranks: Mapping[str, Allotment], unit: AnyUnit = "params") -> int:
    """What the ranks cost together, every site counted once."""
    return sum(c.cost(found, unit) for c, found in winners(candidates, ranks).values())


def dense_costs(candidates: Sequence[Candidate], unit: AnyUnit) -> list[int]:
    """What every site costs dense."""
    return [group[0].cost(None, unit) for group in by_site(candidates).values()]


def lowest_costs(candidates: Sequence[Candidate], unit: AnyUnit) -> list[int]:
    """The least that every site can cost."""
    return [min(c.lowest(unit) for c in group) for group in by_site(candidates).values()]


def allowed(candidates: Sequence[Candidate], budget: Budget, lowest: int | None = None) -> int:
    """The budget in its unit; raises BudgetError if even the lowest plan, of cost `lowest`, exceeds it."""
    unit = budget.unit
    dense = sum(dense_costs(candidates, unit))
    lowest = sum(lowest_costs(candidates, unit)) if lowest is None else lowest
    limit = budget.allowance(dense)
    if limit < lowest:
        verb = "stores" if unit in STORED else "takes"
        raise BudgetError(
            f"the budget is {limit:,} {noun(unit)}, but the smallest plan {verb} {lowest:,} of {dense:,}.",
            f"Keep at least {unit}={math.ceil(1e4 * lowest / dense) / 1e4}, or choose another preset.",
        )
    return limit


def required(budget: Budget | None, rule: str) -> Budget:
    """The budget; raises BudgetError if there is none."""
    if budget is None:
        raise BudgetError(f"the {rule} rule came without a budget.", "Give one: Budget(params=0.25).")
    return budget


def shares(dense: Sequence[int], lowest: Sequence[int], limit: int) -> Float[np.ndarray, " sites"]:
    """What the uniform rule gives each site, before ranks are whole numbers.

    A site gets max(lowest, s · dense), with one s for which all together cost the limit.

    >>> shares([100, 100, 10], [0, 0, 10], 110).round(6)
    array([50., 50., 10.])
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        s = (low + high) / 2
        low, high = (s, high) if np.maximum(lowest, s * np.array(dense)).sum() <= limit else (low, s)
    return np.maximum(lowest, low * np.array(dense))


def floors(candidates: Sequence[Candidate], budget: Budget, default: float) -> dict[str, int]:
    """The least that each site gets by the floor of the budget, or by the rule's own."""
    fraction = default if budget.floor is None else budget.floor
    dense, lowest = dense_costs(candidates, budget.unit), lowest_costs(candidates, budget.unit)
    given = fraction * shares(dense, lowest, budget.allowance(sum(dense)))
    return dict(zip(by_site(candidates), given.astype(int).tolist(), strict=True))
