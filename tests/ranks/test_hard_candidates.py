"""Predictions of nothing, losses that are no numbers, caps beside multiples, sites that cost nothing."""

import math
from pathlib import Path

import numpy as np
import pytest

from tenfold.core.errors import OptionError
from tenfold.formats import LowRank, Tucker
from tenfold.ranks import Budget, Candidate, Fixed, Search, Sensitivity, Uniform, allot
from tenfold.ranks.curve import Curve
from tenfold.ranks.measured import measured
from tenfold.ranks.shares import dealt


def matrix(name: str, rows: int = 20, columns: int = 20, **more: object) -> Candidate:
    values = np.random.default_rng(0).standard_normal((rows, columns))
    return Candidate(name, LowRank, (rows, columns), (), lambda: values, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("cap", [0.5, 0.6, 0.65, None])
@pytest.mark.parametrize("shape", [(64, 3, 9), (16, 5, 9)])
@pytest.mark.parametrize("multiple", [2, 4, 8])
def test_growing_ends_though_a_bond_is_capped(
    cap: float | None, shape: tuple[int, ...], multiple: int
) -> None:
    site = Candidate("c", Tucker, shape, (2,), lambda: np.ones(shape))
    budget = Budget(params=0.5, cap=cap, multiple=multiple)
    ranks = site.within(math.prod(shape) // 2, budget)
    assert ranks is not None and site.cost(ranks) <= math.prod(shape) // 2
    assert all(rank <= (cap or 1) * site.full.ranks[bond] for bond, rank in ranks.items())


def test_a_prediction_of_nothing_says_nothing_of_other_ranks() -> None:
    fits = {1: 4.0, 4: 1e-12}
    site = matrix("fc", 8, 8, fit=lambda ranks: fits[ranks["R"]])
    points = [(16 * k, loss, "fc", {"R": k}) for k, loss in ((1, 8.0), (2, 4.0), (3, 2.0), (4, 0.0))]
    found = [loss for _, loss, _, _ in measured(site, points, anchors=2)]  # pruned weights have exact zeros
    assert found[0] == pytest.approx(4.0) and 2.0 <= found[1] <= 4.0 and 1.0 <= found[2] <= 2.0
    assert found[3] == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_hides_no_other(bad: float) -> None:
    points = [(10, bad, "fc", {"R": 1}), (20, 2.0, "fc", {"R": 2}), (30, bad, "fc", {"R": 3})]
    assert Curve.of(points, "fc", dense=40).costs.tolist() == [20, 40]
    table = {"fc": [({"R": 1}, bad), ({"R": 4}, 0.5)]}
    assert Sensitivity(table)([matrix("fc")], Budget(params=0.5, floor=0)) == {"fc": {"R": 4}}


def test_what_costs_nothing_keeps_its_largest_point() -> None:
    points = [(k, 9.0 - k, "", {"R": k}) for k in range(1, 9)]
    curves = {"a": Curve.of(points, "a", dense=10), "free": Curve.of([], "free", dense=0)}
    found = dealt(curves, 6, {"a": 10.0, "free": 0.0})
    assert {site: int(curves[site].costs[k]) for site, k in found.items()} == {"a": 6, "free": 0}


@pytest.mark.parametrize(
    "rule", [Fixed(0), Fixed(-3), Fixed({"fc": {"R": 0}}), Sensitivity({"fc": [({"R": 0}, 1.0)]})]
)
def test_ranks_below_1_are_refused(rule: Fixed | Sensitivity) -> None:
    with pytest.raises(OptionError, match=r"'fc' is given the ranks .*\nGive ranks from 1"):
        rule([matrix("fc")], Budget(params=0.9))


def test_one_record_is_of_one_search(tmp_path: Path) -> None:
    site = matrix("fc", flops=lambda ranks: 800 if ranks is None else 90 * ranks["R"])
    budget, record = Budget(params=0.5, flops=0.4), tmp_path / "record.json"
    with pytest.raises(OptionError, match="it has one record"):
        allot(Search(lambda ranks: 1.0, trials=2, record=record), [site], budget)
    assert not record.exists()
    assert allot(Uniform(), [site], budget) == {"fc": {"R": 3}}


@pytest.mark.parametrize(("fraction", "whole"), [(0.29, 100), (0.35, 180), (0.57, 100), (1.0, 7)])
def test_a_fraction_is_the_whole_number_it_means(fraction: float, whole: int) -> None:
    assert Budget(params=fraction).allowance(whole) == round(fraction * whole)
