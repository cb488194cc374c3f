"""One threshold on the widths of all gates."""

import json
import math

import numpy as np
import pytest

from tenfold.core.errors import OptionError, SelectionError
from tenfold.core.serde import from_dict, to_dict
from tenfold.formats import LowRank, Tucker
from tenfold.ranks import Budget, Candidate, rules
from tenfold.ranks.base import total
from tenfold.ranks.lasso import Lasso

SITES = [
    Candidate("conv", Tucker, (16, 12, 9), (2,), lambda: np.zeros((16, 12, 9))),
    Candidate("fc", LowRank, (30, 20), (), lambda: np.zeros((30, 20))),
]
RNG = np.random.default_rng(0)
WIDTHS = {
    "conv": {"R0": RNG.uniform(size=8).tolist(), "R1": [*RNG.uniform(size=6).tolist(), 0.0, 0.0]},
    "fc": {"R": [*RNG.uniform(size=9).tolist(), 0.0]},
}


def test_without_a_budget_all_open_gates_count() -> None:
    assert Lasso(WIDTHS)(SITES, None) == {"conv": {"R0": 8, "R1": 6}, "fc": {"R": 9}}
    shut = {"conv": {"R0": [0.0] * 3, "R1": [0.0] * 3}, "fc": {"R": [0.0]}}
    assert Lasso(shut)(SITES, None) == {"conv": {"R0": 1, "R1": 1}, "fc": {"R": 1}}


@pytest.mark.parametrize("keep", [0.05, 0.1, 0.2, 0.3])
def test_the_ranks_are_those_of_one_threshold_and_no_lower_one_is_within_the_budget(keep: float) -> None:
    limit = keep * sum(c.dense for c in SITES)
    found = Lasso(WIDTHS)(SITES, Budget(params=keep, floor=0))

    def at(threshold: float) -> dict[str, dict[str, int]]:
        return {
            c.name: c.cut({b: max(1, sum(w > threshold for w in ws)) for b, ws in WIDTHS[c.name].items()})
            for c in SITES
        }

    thresholds = sorted({0.0, *(w for bonds in WIDTHS.values() for ws in bonds.values() for w in ws)})
    best = next(at(t) for t in thresholds if total(SITES, at(t)) <= limit)
    assert found == best


def test_the_order_of_the_widths_does_not_matter() -> None:
    mixed = {name: {b: ws[::-1] for b, ws in bonds.items()} for name, bonds in WIDTHS.items()}
    assert Lasso(mixed)(SITES, Budget(params=0.2)) == Lasso(WIDTHS)(SITES, Budget(params=0.2))


def test_gates_and_candidates_must_agree() -> None:
    with pytest.raises(SelectionError, match=r"no gates are given for \['fc'\]"):
        Lasso({"conv": WIDTHS["conv"]})(SITES, None)
    with pytest.raises(SelectionError, match=r"for \['tail'\], which are no sites"):
        Lasso(WIDTHS | {"tail": {"R": [1.0]}})(SITES, None)
    with pytest.raises(SelectionError, match="the gates of 'fc' are on R0, its bonds are R"):
        Lasso(WIDTHS | {"fc": {"R0": [1.0]}})(SITES, None)


@pytest.mark.parametrize("widths", [[], [-0.1], [math.nan], [math.inf]])
def test_widths_that_no_gates_have_are_refused(widths: list[float]) -> None:
    with pytest.raises(OptionError, match="the widths of bond R of 'fc' came as"):
        Lasso({"fc": {"R": widths}})


def test_the_rule_is_json() -> None:
    again = from_dict(rules, json.loads(json.dumps(to_dict(rules, Lasso(WIDTHS)))))
    assert again(SITES, Budget(params=0.2)) == Lasso(WIDTHS)(SITES, Budget(params=0.2))
