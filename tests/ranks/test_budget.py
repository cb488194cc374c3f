"""Budgets have one unit or two, and say what is wrong with them."""

from dataclasses import replace

import pytest

from tenfold.core.errors import BudgetError
from tenfold.ranks import Budget


@pytest.mark.parametrize("amount", [0.0, -0.5, 1.5, 0, -3, True, "0.5"])
@pytest.mark.parametrize("unit", ["params", "flops", "bytes", "latency"])
def test_a_budget_outside_its_range_is_refused(unit: str, amount: float) -> None:
    with pytest.raises(BudgetError, match=f"a budget of {unit}=.* came") as caught:
        Budget(**{unit: amount})
    assert "fraction to keep" in caught.value.remedy


def test_a_budget_has_one_unit_or_two() -> None:
    for given in ({}, {"params": 0.5, "flops": 0.5, "bytes": 0.5}, {"floor": 0.3}):
        with pytest.raises(BudgetError, match="one or two of params, flops, bytes, latency"):
            Budget(**given)
    both = Budget(params=0.5, flops=7, floor=0.3)
    assert (both.units, both.only("flops")) == (("params", "flops"), Budget(flops=7, floor=0.3))
    with pytest.raises(BudgetError, match="has two units"):
        _ = both.unit


@pytest.mark.parametrize(
    "terms", [{"floor": 1.1}, {"floor": -0.1}, {"cap": 0.0}, {"cap": 2.0}, {"multiple": 0}]
)
def test_bounds_of_ranks_outside_their_range_are_refused(terms: dict) -> None:
    (name,) = terms
    with pytest.raises(BudgetError, match=f"a {name} of"):
        Budget(params=0.5, **terms)


def test_a_budget_is_a_fraction_or_a_count() -> None:
    assert Budget(flops=0.5).allowance(1001) == 500
    assert Budget(bytes=77).allowance(1001) == 77
    assert Budget(params=0.25).elements(1000) == 250
    assert (Budget(flops=3).unit, Budget(flops=3).amount) == ("flops", 3)


def test_a_latency_is_a_fraction_or_nanoseconds() -> None:
    assert (Budget(latency=0.5).unit, Budget(latency=0.5).allowance(9_001)) == ("latency", 4_500)
    assert Budget(latency=2_500_000).allowance(9_000_000) == 2_500_000
    with pytest.raises(BudgetError, match=r"latency=1\.5 came") as caught:
        Budget(latency=1.5)
    assert "nanoseconds" in caught.value.remedy


def test_a_budget_of_a_largest_drop_says_what_to_call() -> None:
    with pytest.raises(BudgetError, match=r"max_drop=0\.01") as caught:
        Budget(max_drop=0.01)
    assert "compress_within(" in caught.value.remedy
    with pytest.raises(BudgetError, match="max_drop"):
        Budget(params=0.5, max_drop=0.01)
    assert "max_drop" not in vars(Budget(params=0.5))
    assert replace(Budget(params=0.5), floor=0.2) == Budget(params=0.5, floor=0.2)


def test_a_budget_shows_what_was_given() -> None:
    assert repr(Budget(params=0.25)) == "Budget(params=0.25)"
    assert repr(Budget(bytes=9, floor=0, cap=0.5)) == "Budget(bytes=9, floor=0, cap=0.5)"


def test_ranks_up_to_the_multiple_are_left() -> None:
    terms = Budget(params=0.5, multiple=8)
    assert [terms.trimmed(r, 100) for r in (0, 1, 7, 8, 9, 15, 16, 17)] == [1, 1, 7, 8, 8, 8, 16, 16]
    assert [terms.next(r) for r in (1, 7, 8, 16)] == [2, 8, 16, 24]
