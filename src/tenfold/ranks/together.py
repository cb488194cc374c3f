"""Budgets in two units: one price for both, such that both bounds hold."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tenfold.core.errors import BudgetError, OptionError
from tenfold.ranks.base import RankRule, allowed, total
from tenfold.ranks.budget import AnyUnit, Budget, Mixture, Unit
from tenfold.ranks.candidate import Allotment, Candidate

WHOLE = 10**9
"""What a budget amounts to in a mixture of its units."""
STEPS, CLOSE = 12, 0.99
"""How often the mixture is halved at most, and how far both units need to be used up."""
CUTS = tuple(0.01 * 2**k for k in range(7))
"""What is left out of the budget where no mixture met both bounds."""

NOTHING = Mixture(())

Ranks = dict[str, Allotment]


@dataclass(frozen=True, repr=False)
class Mixed(Budget):
    """A budget in two units as one in their mixture."""

    mixture: Mixture = NOTHING
    whole: int = WHOLE

    def __post_init__(self, max_drop: float | None) -> None:
        """Checked before."""

    @property
    def unit(self) -> AnyUnit:
        """The mixture."""
        return self.mixture

    @property
    def amount(self) -> int:
        """The parts of the mixture."""
        return self.whole


def allot(rule: RankRule, candidates: Sequence[Candidate], budget: Budget | None) -> Ranks:
    """The ranks by a rule, for budgets in one unit or in two.

    min Σ loss subject to Σ a ≤ A and Σ b ≤ B has one price λ on cost and one share μ of the first unit:
    the rule spends a budget in μ a/A + (1 - μ) b/B, and μ is halved until both units are used up alike. Where
    one bound alone makes the other hold, it is the budget. The rule is asked about twenty
    times at most, so that one which measures takes as many times as long.

    Raises:
        BudgetError: if one of the bounds cannot be met, or both together.
        OptionError: if the rule keeps a record, which is of one search.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> from tenfold.ranks import Uniform
    >>> slow = Candidate(
    ...     "slow", LowRank, (20, 20), (), lambda: np.eye(20), flops=lambda r: 90 * r["R"] if r else 900
    ... )
    >>> allot(Uniform(), [slow], Budget(params=0.5, flops=0.3))
    {'slow': {'R': 3}}
    """
    if budget is None or len(budget.units) == 1:
        return rule(candidates, budget)
    if getattr(rule, "record", None) is not None:
        raise OptionError(
            f"{budget} has two units, for which the rule is asked several times, but it has one record.",
            "Give a budget in one unit, or record=None.",
        )
    limits = {unit: allowed(candidates, budget.only(unit)) for unit in budget.units}
    for unit in budget.units:
        ranks = rule(candidates, budget.only(unit))
        if max(_used(candidates, ranks, limits)) <= 1:
            return ranks
    return _between(rule, candidates, budget, limits)


def _between(
    rule: RankRule, candidates: Sequence[Candidate], budget: Budget, limits: Mapping[Unit, int]
) -> Ranks:
    """The share of the first unit at which both are used up alike; a little less of both where ranks jump."""
    low, high, share = 0.0, 1.0, 0.5
    met: Ranks | None = None
    for _ in range(STEPS):
        share = (low + high) / 2
        ranks = _mixed(rule, candidates, budget, limits, share, WHOLE)
        first, second = _used(candidates, ranks, limits)
        met = ranks if max(first, second) <= 1 else met
        if met is ranks and min(first, second) >= CLOSE:
            return ranks
        low, high = (share, high) if first > second else (low, share)
    for cut in () if met is not None else CUTS:
        with suppress(BudgetError):
            ranks = _mixed(rule, candidates, budget, limits, share, int(WHOLE * (1 - cut)))
            if max(_used(candidates, ranks, limits)) <= 1:
                return ranks
    if met is None:
        raise _unmet(budget)
    return met


def _mixed(
    rule: RankRule,
    candidates: Sequence[Candidate],
    budget: Budget,
    limits: Mapping[Unit, int],
    share: float,
    whole: int,
) -> Ranks:
    """What the rule gives within a budget in the mixture; raises BudgetError if no ranks are within it."""
    shares = zip(limits.items(), (share, 1 - share), strict=True)
    prices = tuple((unit, part * WHOLE / max(1, limit)) for (unit, limit), part in shares)
    mixed = Mixed(
        floor=budget.floor, cap=budget.cap, multiple=budget.multiple, mixture=Mixture(prices), whole=whole
    )
    try:
        return rule(candidates, mixed)
    except BudgetError as error:
        raise _unmet(budget) from error


def _used(candidates: Sequence[Candidate], ranks: Ranks, limits: Mapping[Unit, int]) -> list[float]:
    """How much of every bound the ranks use up; up to 1 it holds."""
    return [total(candidates, ranks, unit) / max(1, limit) for unit, limit in limits.items()]


def _unmet(budget: Budget) -> BudgetError:
    return BudgetError(
        f"no ranks were found that meet {budget} in both units.",
        "Allow more of one, or choose another preset.",
    )
