"""Measured losses lead to ranks, by a threshold and by the sum."""

import itertools
import json

import numpy as np
import pytest

from tenfold.core.errors import BudgetError, OptionError, SelectionError
from tenfold.core.serde import from_dict, to_dict
from tenfold.formats import LowRank, Tucker
from tenfold.ranks import Budget, Candidate, Sensitivity, measured_losses, rules

SITES = [Candidate(n, LowRank, (20, 20), (), lambda: np.eye(20)) for n in ("head", "body")]
TABLE = {"head": [(2, 0.5), (5, 0.4), (8, 0.1)], "body": [(2, 0.3), (5, 0.2), (8, 0.02)]}


def ranks(rule: Sensitivity, budget: Budget) -> list[int | None]:
    return [r and r["R"] for r in rule(SITES, budget).values()]


def test_the_threshold_is_as_low_as_the_budget_allows() -> None:
    assert ranks(Sensitivity(TABLE), Budget(params=0.4)) == [5, 2]  # both may lose 0.4
    assert ranks(Sensitivity(TABLE), Budget(params=0.5)) == [8, 2]  # both may lose 0.3
    assert ranks(Sensitivity(TABLE), Budget(params=0.6)) == [8, 2]  # 0.2 would cost 520
    assert ranks(Sensitivity(TABLE), Budget(params=1.0)) == [None, None]


def test_the_total_is_the_least_that_the_budget_allows() -> None:
    assert ranks(Sensitivity(TABLE, "total"), Budget(params=0.5)) == [8, 2]  # 0.4 gained, against 0.28
    assert ranks(Sensitivity(TABLE, "total"), Budget(params=0.9)) == [None, 8]


def test_ranks_that_lose_more_than_cheaper_ones_are_passed_over() -> None:
    table = TABLE | {"head": [(2, 0.1), (5, 0.4), (8, 0.3)]}
    assert ranks(Sensitivity(table, "total"), Budget(params=0.5))[0] == 2


def test_losses_that_fell_below_the_dense_one_keep_the_site_small() -> None:
    table = TABLE | {"head": [(2, -0.01), (5, 0.0)]}
    assert ranks(Sensitivity(table), Budget(params=1.0)) == [2, None]


def test_the_smallest_budget_is_that_of_the_table() -> None:
    with pytest.raises(BudgetError, match="smallest plan stores 160 of 800"):
        Sensitivity(TABLE)(SITES, Budget(params=0.1))


def test_table_and_candidates_must_agree() -> None:
    with pytest.raises(SelectionError, match=r"no losses are given for \['head'\]"):
        Sensitivity({"body": TABLE["body"]})(SITES, Budget(params=0.5))
    with pytest.raises(SelectionError, match="which are no sites"):
        Sensitivity(TABLE | {"tail": []})(SITES, Budget(params=0.5))
    with pytest.raises(OptionError, match="worst, total"):
        Sensitivity(TABLE, "mean")  # type: ignore[arg-type]


def test_a_measured_table_is_json_and_a_rule_of_it_too() -> None:
    tucker = Candidate("conv", Tucker, (8, 8, 9), (2,), lambda: np.zeros((8, 8, 9)))
    asked = []
    table = measured_losses(
        [tucker], lambda name, r: asked.append(r) or 1 / r["R0"], keeps=(0.9, 0.2, 0.5, 0.5)
    )
    assert [r for r, _ in table["conv"]] == asked
    assert all(r["R0"] >= before["R0"] for before, r in itertools.pairwise(asked))
    rule = Sensitivity(json.loads(json.dumps(table)))
    again = from_dict(rules, json.loads(json.dumps(to_dict(rules, rule))))
    assert again([tucker], Budget(params=0.6)) == rule([tucker], Budget(params=0.6)) == {"conv": asked[1]}
