"""Tables are plain data."""

import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from report_tables import DENSE, FULL, SMALL, TABLES, TINY

from tenfold.report import LayerLine, Row, Table, smallest_within


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_tables_go_into_strict_json_and_back(table: Table) -> None:
    plain = table.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_json_holds_every_number() -> None:
    small = FULL.to_dict()["rows"][0]
    assert (small["params"], small["latency"]["median"], small["accuracy_before"]) == (
        1_080_250,
        0.0034,
        0.903,
    )
    assert small["layers"][0]["ranks"] == {"r0": 12, "r1": 7}


def test_mappings_and_numbers_of_other_kinds_become_plain() -> None:
    line = LayerLine("a", ranks=MappingProxyType({"r": 1}), error=float("inf"))
    row = Row("tt", params=np.int64(5), accuracy=np.float32(0.5), layers=(line,))  # type: ignore[arg-type]
    plain = Table("", row, provenance=MappingProxyType({"seed": "0"})).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert (plain["dense"]["params"], plain["dense"]["accuracy"]) == (5, 0.5)
    assert plain["dense"]["layers"][0]["ranks"] == {"r": 1} and plain["provenance"] == {"seed": "0"}
    assert plain["dense"]["layers"][0]["error"] is None


def test_the_accuracy_before_tuning_stands_in_for_the_final_one() -> None:
    assert SMALL.best_known_accuracy == 0.97
    assert replace(SMALL, accuracy=None).best_known_accuracy == 0.903
    assert Row("tt").best_known_accuracy is None


@pytest.mark.parametrize(("drop", "method"), [(0.01, "tucker2"), (0.05, "cp4"), (0.001, None)])
def test_the_pick_is_the_smallest_that_is_good_enough(drop: float, method: str | None) -> None:
    pick = smallest_within(FULL, drop)
    assert (pick and pick.method) == method


def test_a_variant_that_is_larger_than_dense_is_never_picked() -> None:
    larger = replace(TINY, params=10**9, accuracy=1.0)
    assert smallest_within(Table("", DENSE, (larger,))) is None
