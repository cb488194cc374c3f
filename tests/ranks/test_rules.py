"""Rules stay within the budget, grow with it, and say the smallest budget that can be met."""

import math
from functools import partial

import numpy as np
import pytest

from tenfold.core.errors import BudgetError, OptionError, SelectionError
from tenfold.formats import CP, LowRank, TensorTrain, Tucker
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
    Sensitivity,
    Uniform,
    measured_losses,
    rules,
    winners,
)
from tenfold.ranks.base import lowest_costs, total
from tenfold.ranks.lasso import Lasso
from tenfold.ranks.search import Search

POSITIONS = {"first": 900, "tucker": 400, "train": 100}
ROWS = [
    ("first", CP, (16, 3, 9), ()),
    ("tucker", Tucker, (32, 24, 9), (2,)),
    ("train", TensorTrain, (9, 48, 40), ()),
    ("matrix", LowRank, (60, 50), ()),
    ("pointwise", LowRank, (6, 1), ()),
]


def candidates() -> list[Candidate]:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=row[2]) for row in ROWS]
    return [
        Candidate(
            *row, partial(np.asarray, x), flops=partial(work, *row), itemsize=2, latency=partial(time, *row)
        )
        for row, x in zip(ROWS, arrays, strict=True)
    ]


def work(name: str, form: type, shape: tuple[int, ...], whole: tuple[int, ...], ranks: Allotment) -> int:
    dense = math.prod(shape)
    stored = dense if ranks is None else form.full(shape, whole).with_ranks(ranks).numel
    return 2 * POSITIONS.get(name, 1) * min(stored, dense)


def time(name: str, form: type, shape: tuple[int, ...], whole: tuple[int, ...], ranks: Allotment) -> int:
    """A second launch takes as long as 500 elements."""
    dense = math.prod(shape)
    stored = dense if ranks is None else 500 + form.full(shape, whole).with_ranks(ranks).numel
    return 3 * (1000 + stored)


def stored(ranks: dict) -> int:
    return total(candidates(), ranks)


DENSE = sum(c.dense for c in candidates())
KEEPS = (0.08, 0.1, 0.25, 0.5, 0.8, 0.95, 1.0)
FRACTIONS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TABLE = measured_losses(candidates(), lambda name, ranks: 1 / math.prod(ranks.values()), keeps=FRACTIONS)
WIDTHS = {
    c.name: {b: [1.2**-k / (1 + n) for k in range(r)] for b, r in c.full.ranks.items()}
    for n, c in enumerate(candidates())
}
GLOBAL = [
    Lagrangian(),
    Lagrangian(relative=True),
    ALDS(),
    Sensitivity(TABLE),
    Sensitivity(TABLE, "total"),
    Lasso(WIDTHS),
    Search(lambda ranks: -total(candidates(), ranks), trials=4),
]
ALL = [Uniform(), Energy(1.0), EVBMF(), *GLOBAL]


def named(rule: RankRule) -> str:
    return f"{type(rule).__name__}-{getattr(rule, 'least', '') or getattr(rule, 'relative', '')}"


@pytest.mark.parametrize("unit", ["params", "bytes", "flops", "latency"])
@pytest.mark.parametrize("rule", ALL, ids=named)
def test_rule_is_within_budget_monotone_and_deterministic(rule: RankRule, unit: str) -> None:
    """Which measured ranks are best need not grow with the budget: `Search` alone is not monotone."""
    dense, totals = sum(c.cost(None, unit) for c in candidates()), []
    for keep in KEEPS if unit != "latency" else KEEPS[3:]:
        ranks = rule(candidates(), Budget(**{unit: keep}))
        assert ranks == rule(candidates(), Budget(**{unit: keep}))
        totals.append(total(candidates(), ranks, unit))
        assert totals[-1] <= keep * dense
    assert totals == sorted(totals) or isinstance(rule, Search)


@pytest.mark.parametrize("rule", ALL, ids=named)
def test_a_cap_and_a_multiple_bound_the_ranks(rule: RankRule) -> None:
    ranks = rule(candidates(), Budget(params=0.6, cap=0.5, multiple=4))
    assert any(ranks.values())
    for c in candidates():
        for bond, rank in (ranks[c.name] or {}).items():
            assert rank <= 4 or rank % 4 == 0
            assert rank <= max(1, c.full.ranks[bond] // 2)


@pytest.mark.parametrize("rule", GLOBAL, ids=named)
@pytest.mark.parametrize("floor", [None, 0.4, 0.7])
def test_no_site_falls_below_the_floor(rule: RankRule, floor: float | None) -> None:
    uniform = Uniform()(candidates(), Budget(params=0.4))
    ranks = rule(candidates(), Budget(params=0.4, floor=floor))
    for c in candidates():
        least = int((floor or 0.6) * min(c.cost(uniform[c.name]), 0.4 * c.dense))
        table = [c.cost(r) for r, _ in TABLE[c.name]]
        coarse = max((x for x in table if x <= least), default=0)
        start = coarse if isinstance(rule, Sensitivity) else 0.9 * c.cost(c.within(least))
        assert c.cost(ranks[c.name]) >= start


@pytest.mark.parametrize("rule", ALL, ids=named)
def test_every_rule_says_the_smallest_budget(rule: RankRule) -> None:
    with pytest.raises(BudgetError, match=r"smallest plan stores [\d,]+ of") as caught:
        rule(candidates(), Budget(params=10))
    smallest = float(caught.value.remedy.split("params=")[1].split(", or")[0])
    found = rule(candidates(), Budget(params=smallest))
    assert stored(found) <= smallest * DENSE
    assert sum(lowest_costs(candidates(), "params")) <= smallest * DENSE


@pytest.mark.parametrize("rule", [Uniform(), *(r for r in GLOBAL if not isinstance(r, Lasso))], ids=named)
def test_global_rules_need_a_budget(rule: RankRule) -> None:
    with pytest.raises(BudgetError, match="rule came without a budget"):
        rule(candidates(), None)


def test_a_budget_in_flops_needs_a_count_of_flops() -> None:
    c = Candidate("w", LowRank, (6, 8), (), lambda: np.eye(6, 8))
    with pytest.raises(BudgetError, match="'w' does not say how many"):
        Uniform()([c], Budget(flops=0.5))


def test_a_budget_in_latency_needs_a_latency() -> None:
    c = Candidate("w", LowRank, (6, 8), (), lambda: np.eye(6, 8), flops=lambda ranks: 7)
    with pytest.raises(BudgetError, match="counts nanoseconds, but 'w' does not say how many") as caught:
        Uniform()([c], Budget(latency=0.5))
    assert "latency=" in caught.value.remedy and "params or bytes" in caught.value.remedy


@pytest.mark.parametrize("rule", [r for r in ALL if not isinstance(r, Sensitivity)], ids=named)
def test_a_site_that_no_ranks_make_faster_stays_dense(rule: RankRule) -> None:
    """Its launches alone take longer than the dense weight; in parameters it would be factorized."""
    ranks = rule(candidates(), Budget(latency=0.6))
    small = next(c for c in candidates() if c.name == "first")
    assert small.lowest("latency") == small.cost(None, "latency")
    assert ranks["first"] is None and any(ranks.values())
    assert Uniform()(candidates(), Budget(params=0.3))["first"] is not None


def test_the_smallest_budget_in_latency_is_said_in_time() -> None:
    with pytest.raises(
        BudgetError, match=r"100 nanoseconds, but the smallest plan takes [\d,]+ of"
    ) as caught:
        Uniform()(candidates(), Budget(latency=100))
    smallest = float(caught.value.remedy.split("latency=")[1].split(", or")[0])
    found = Uniform()(candidates(), Budget(latency=smallest))
    assert total(candidates(), found, "latency") <= smallest * sum(
        c.cost(None, "latency") for c in candidates()
    )


def test_ranks_that_cost_no_more_are_taken() -> None:
    """Times are flat where hardware is not busy: of ranks that take as long, the largest are used."""
    steps = Candidate("w", LowRank, (40, 40), (), lambda: np.eye(40), latency=lambda r: 90 if r is None else
                      10 * -(-r["R"] // 4))  # fmt: skip
    assert steps.within(50, Budget(latency=1.0)) == {"R": 20}
    assert Uniform()([steps], Budget(latency=50)) == {"w": {"R": 20}}


def test_flops_and_params_share_a_budget_differently() -> None:
    by_params, by_flops = (Lagrangian()(candidates(), b) for b in (Budget(params=0.5), Budget(flops=0.5)))
    matrix = next(c for c in candidates() if c.name == "matrix")
    assert matrix.cost(by_flops["matrix"]) > matrix.cost(by_params["matrix"])


def foldings() -> list[Candidate]:
    """Two foldings of one kernel, of which the second has rank 3; and a matrix."""
    rng = np.random.default_rng(1)
    kernel = np.einsum("ar,br->ab", rng.normal(size=(24, 3)), rng.normal(size=(27, 3)))
    kernel = kernel.reshape(8, 3, 9, 3).transpose(0, 2, 1, 3)
    noisy = kernel + 1e-3 * rng.normal(size=kernel.shape)
    matrix = rng.normal(size=(20, 20))
    return [
        Candidate("one", LowRank, (72, 9), (), lambda: noisy.reshape(72, 9), site="conv"),
        Candidate(
            "two", LowRank, (24, 27), (), lambda: noisy.transpose(0, 2, 1, 3).reshape(24, 27), site="conv"
        ),
        Candidate("fc", LowRank, (20, 20), (), lambda: matrix),
    ]


@pytest.mark.parametrize("rule", [Energy(), ALDS(), Lagrangian()], ids=named)
def test_of_several_candidates_the_one_that_suits_the_site_is_used(rule: RankRule) -> None:
    found = rule(foldings(), Budget(params=0.5, floor=0))
    assert found["one"] is None
    assert found["two"] is not None
    assert total(foldings(), found) <= 0.5 * (648 + 400)
    used, ranks = winners(foldings(), found)["conv"]
    assert (used.name, ranks) == ("two", found["two"])


def test_rules_that_look_at_nothing_use_the_first_candidate() -> None:
    for rule in (Uniform(), Fixed(2)):
        found = rule(foldings(), Budget(params=0.5))
        assert found["one"] is not None
        assert found["two"] is None
    assert Fixed({"two": 2})(foldings(), None)["two"] == {"R": 2}


def test_two_candidates_cannot_have_one_name() -> None:
    with pytest.raises(SelectionError, match=r"several candidates are called \['matrix'\]"):
        Uniform()([*candidates(), candidates()[3]], Budget(params=0.5))


@pytest.mark.parametrize("keep", KEEPS[1:-1])
def test_uniform_lands_just_below_the_budget_and_near_it_at_every_site(keep: float) -> None:
    ranks = Uniform()(candidates(), Budget(params=keep))
    assert 0.97 * keep * DENSE <= stored(ranks) <= keep * DENSE
    matrix = next(c for c in candidates() if c.name == "matrix")
    two_ranks = 2 * (60 + 50)  # its own step, and what the others left
    assert abs(matrix.cost(ranks["matrix"]) - keep * matrix.dense) <= two_ranks


def test_uniform_gives_way_where_ranks_of_one_exceed_a_share() -> None:
    ranks = Uniform()(candidates(), Budget(params=0.05))
    assert stored(ranks) <= 0.05 * DENSE
    assert ranks["first"] == {"R": 1}


def test_a_weight_that_no_ranks_make_smaller_stays_dense() -> None:
    for rule in (Uniform(), Energy(0.5), Fixed(1)):
        budget = Budget(params=0.5) if isinstance(rule, Uniform) else None
        assert rule(candidates(), budget)["pointwise"] is None


def test_budget_below_the_smallest_plan_names_it() -> None:
    with pytest.raises(BudgetError, match=r"smallest plan stores [\d,]+ of") as caught:
        Uniform()(candidates(), Budget(params=10))
    smallest = float(caught.value.remedy.split("params=")[1].split(",")[0])
    assert stored(Uniform()(candidates(), Budget(params=smallest))) <= smallest * DENSE


def test_energy_keeps_the_asked_share_of_every_spectrum() -> None:
    c = Candidate("w", LowRank, (6, 8), (), lambda: np.diag([4.0, 3, 2, 1, 0.5, 0.1]) @ np.eye(6, 8))
    energy = np.array([16, 9, 4, 1, 0.25, 0.01])
    for keep in (0.4, 0.5, 0.8):
        expected = int(np.searchsorted(np.cumsum(energy) / energy.sum(), keep) + 1)
        found = Energy(keep)([c], None)["w"]
        assert found == ({"R": expected} if expected * 14 < 48 else None)


def test_energy_refuses_a_share_outside_its_range() -> None:
    with pytest.raises(OptionError, match="fraction of the energy"):
        Energy(0.0)


def test_fixed_takes_ranks_by_site_and_cuts_them() -> None:
    ranks = Fixed({"tucker": (999, 2, None), "matrix": 5})(candidates(), None)
    assert ranks["tucker"] == {"R0": 18, "R1": 2}
    assert ranks["matrix"] == {"R": 5}
    assert ranks["train"] is None


def test_fixed_refuses_unknown_sites_and_an_overrun_budget() -> None:
    with pytest.raises(SelectionError, match="no sites"):
        Fixed({"nowhere": 3})(candidates(), None)
    with pytest.raises(BudgetError, match="the budget is"):
        Fixed(20)(candidates(), Budget(params=0.2))


def test_rules_are_registered() -> None:
    assert set(rules) == {
        "alds", "energy", "evbmf", "fixed", "lagrangian", "lasso", "search", "sensitivity", "uniform"
    }  # fmt: skip


def test_cost_is_that_of_the_factors() -> None:
    c = next(c for c in candidates() if c.name == "tucker")
    assert c.cost({"R0": 4, "R1": 5}) == 32 * 4 + 24 * 5 + 4 * 5 * 9
    assert c.cost(None) == math.prod(c.shape)
