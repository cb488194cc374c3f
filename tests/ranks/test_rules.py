"""Rules stay within the budget, grow with it, and say the smallest budget that can be met."""

import math
from functools import partial

import numpy as np
import pytest

from tenfold.core.errors import BudgetError, OptionError, SelectionError
from tenfold.formats import CP, LowRank, TensorTrain, Tucker
from tenfold.ranks import Budget, Candidate, Energy, Fixed, RankRule, Uniform, rules


def candidates() -> list[Candidate]:
    rng = np.random.default_rng(0)
    rows = [
        ("first", CP, (16, 3, 9), ()),
        ("tucker", Tucker, (32, 24, 9), (2,)),
        ("train", TensorTrain, (9, 48, 40), ()),
        ("matrix", LowRank, (60, 50), ()),
        ("pointwise", LowRank, (6, 1), ()),
    ]
    arrays = [rng.normal(size=row[2]) for row in rows]
    return [Candidate(*row, partial(np.asarray, x)) for row, x in zip(rows, arrays, strict=True)]


def stored(ranks: dict) -> int:
    return sum(c.cost(ranks[c.name]) for c in candidates())


DENSE = sum(c.dense for c in candidates())
KEEPS = (0.08, 0.1, 0.25, 0.5, 0.8, 0.95, 1.0)


@pytest.mark.parametrize("rule", [Uniform(), Energy(1.0)], ids=str)
def test_rule_is_within_budget_monotone_and_deterministic(rule: RankRule) -> None:
    totals = []
    for keep in KEEPS:
        ranks = rule(candidates(), Budget(params=keep))
        assert ranks == rule(candidates(), Budget(params=keep))
        totals.append(stored(ranks))
        assert totals[-1] <= keep * DENSE
    assert totals == sorted(totals)


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


@pytest.mark.parametrize("params", [0.0, -0.5, 1.5, 0, -3, True])
def test_a_budget_outside_its_range_is_refused(params: float) -> None:
    with pytest.raises(BudgetError, match="fraction to keep"):
        Budget(params=params)


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
    assert set(rules) == {"energy", "fixed", "uniform"}


def test_cost_is_that_of_the_factors() -> None:
    c = next(c for c in candidates() if c.name == "tucker")
    assert c.cost({"R0": 4, "R1": 5}) == 32 * 4 + 24 * 5 + 4 * 5 * 9
    assert c.cost(None) == math.prod(c.shape)
