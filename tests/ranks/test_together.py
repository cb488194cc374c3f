"""Budgets in two units: both bounds hold, and no more is given away than whole ranks make necessary."""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from tenfold.core.errors import BudgetError
from tenfold.formats import CP, LowRank, Tucker
from tenfold.ranks import (
    ALDS,
    EVBMF,
    Allotment,
    Budget,
    Candidate,
    Energy,
    Fixed,
    Lagrangian,
    RankRule,
    Uniform,
    allot,
)
from tenfold.ranks.base import total

RULES: list[RankRule] = [Uniform(), Lagrangian(), Energy(), ALDS(), EVBMF()]


def works(dense: int, each: int) -> Callable[[Allotment], int]:
    return lambda ranks: dense if ranks is None else each * sum(ranks.values())


def decaying(n: int, m: int, rate: float) -> np.ndarray:
    rng = np.random.default_rng(n)
    u, v = np.linalg.qr(rng.normal(size=(n, n)))[0], np.linalg.qr(rng.normal(size=(m, m)))[0]
    return u[:, : min(n, m)] * rate ** np.arange(min(n, m)) @ v[: min(n, m)]


def sites() -> list[Candidate]:
    """Early layers are small and run at many positions, late ones are large and run at few."""
    sizes = {"early": (32, 48, 64), "middle": (80, 80, 16), "late": (160, 192, 1)}
    found = []
    for name, (n, m, positions) in sizes.items():
        weight = decaying(n, m, 0.95)
        run = works(2 * positions * n * m, 2 * positions * (n + m))
        found.append(Candidate(name, LowRank, (n, m), (), lambda w=weight: w, flops=run))
    return found


def used(candidates: list[Candidate], ranks: Mapping[str, Allotment], budget: Budget) -> list[float]:
    dense = dict.fromkeys(c.name for c in candidates)
    return [
        total(candidates, ranks, unit) / budget.only(unit).allowance(total(candidates, dense, unit))
        for unit in budget.units
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("keep", [{"params": 0.3, "flops": 0.2}, {"params": 0.2, "flops": 0.5}])
def test_both_bounds_hold(rule: RankRule, keep: dict[str, float]) -> None:
    candidates, budget = sites(), Budget(**keep)
    assert max(used(candidates, allot(rule, candidates, budget), budget)) <= 1


def test_a_bound_that_the_other_implies_changes_nothing() -> None:
    candidates, rule = sites(), Lagrangian()
    assert allot(rule, candidates, Budget(params=0.2, flops=1.0)) == rule(candidates, Budget(params=0.2))
    assert allot(rule, candidates, Budget(params=1.0, flops=0.1)) == rule(candidates, Budget(flops=0.1))


def test_both_are_used_up_where_both_bind() -> None:
    candidates, budget = sites(), Budget(params=0.3, flops=0.2, floor=0)
    alone = [used(candidates, Lagrangian()(candidates, budget.only(u)), budget) for u in budget.units]
    assert max(alone[0]) > 1.02 and max(alone[1]) > 1.02  # neither bound alone is enough
    assert min(used(candidates, allot(Lagrangian(), candidates, budget), budget)) > 0.97


def test_lagrangian_comes_near_the_best_of_all_ranks() -> None:
    candidates, budget = sites(), Budget(params=0.3, flops=0.2, floor=0)
    chosen = allot(Lagrangian(), candidates, budget)
    tails = {c.name: np.append(np.cumsum(c.spectra("R")[0][::-1] ** 2)[::-1], 0.0) for c in candidates}

    def loss(ranks: Mapping[str, Allotment]) -> float:
        return sum(tails[name][r["R"]] for name, r in ranks.items() if r is not None)

    options = [[{"R": r} for r in range(1, c.full.ranks["R"] + 1)] + [None] for c in candidates]
    names = [c.name for c in candidates]
    every = (dict(zip(names, pick, strict=True)) for pick in itertools.product(*(o[::3] for o in options)))
    best = min(loss(ranks) for ranks in every if max(used(candidates, ranks, budget)) <= 1)
    assert loss(chosen) <= 1.02 * best


def test_formats_compete_for_a_site_under_both_bounds() -> None:
    weight = np.random.default_rng(0).normal(size=(12, 10, 9))
    tucker = Candidate(
        "tucker", Tucker, weight.shape, (2,), lambda: weight, flops=works(9000, 300), site="conv"
    )
    cp = Candidate("cp", CP, weight.shape, (), lambda: weight, flops=works(9000, 60), site="conv")
    candidates, budget = [tucker, cp, *sites()], Budget(params=0.3, flops=0.3)
    chosen = allot(Lagrangian(), candidates, budget)
    assert max(used(candidates, chosen, budget)) <= 1
    assert sum(chosen[name] is not None for name in ("tucker", "cp")) == 1


@pytest.mark.parametrize("unit", ["params", "flops"])
def test_one_bound_out_of_reach_is_named(unit: str) -> None:
    budget = Budget(**{"params": 0.5, "flops": 0.5} | {unit: 1})
    with pytest.raises(BudgetError, match="the budget is 1 ") as caught:
        allot(Lagrangian(), sites(), budget)
    assert f"Keep at least {unit}=" in caught.value.remedy


def test_bounds_that_exclude_each_other_are_refused() -> None:
    weight = np.eye(20)
    small = Candidate("small", LowRank, (20, 20), (), lambda: weight, flops=works(1000, 900), site="fc")
    fast = Candidate(
        "fast", LowRank, (4, 100), (), lambda: weight.reshape(4, 100), flops=works(1000, 100), site="fc"
    )
    with pytest.raises(
        BudgetError, match="no ranks were found that meet Budget"
    ):  # 40 elements or 100 FLOPs, but not both
        allot(Lagrangian(), [small, fast], Budget(params=50, flops=200))


def test_fixed_ranks_are_checked_against_both() -> None:
    candidates = sites()
    ranks = Fixed({"early": 2, "middle": 3, "late": 4})
    assert allot(ranks, candidates, Budget(params=0.3, flops=0.3))["late"] == {"R": 4}
    with pytest.raises(BudgetError, match=r"the ranks take \d.* FLOPs"):
        allot(ranks, candidates, Budget(params=0.3, flops=0.04))
