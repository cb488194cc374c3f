"""The benchmark of layers: contenders agree, memory is seen, rows are kept, tables show what is missed."""

import doctest
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold.compress.presets import presets

FOLDER = Path(__file__).parents[2] / "benchmarks" / "layers"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """The scripts import each other by name, as they do when they are run."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


def script(name: str) -> Any:
    return import_module(name)


def check_rows(kind: str, size: str = "") -> None:
    """All contenders of these rows give the same output; TensorLy-Torch, where it is installed, warns."""
    warnings.simplefilter("ignore")
    found = [r for r in script("rows").rows() if r.kind == kind and r.name.endswith(size)]
    assert found
    for row in found:
        modules, x = row.contenders(), row.input()
        assert {"dense", "ours"} < set(modules) and any(n.startswith("by hand") for n in modules)
        script("run").check_equal(modules, x)


@pytest.mark.parametrize("kind", ["linear", "conv", "lstm"])
def test_contenders_hold_the_same_factors(kind: str) -> None:
    check_rows(kind)


@pytest.mark.slow
def test_contenders_of_embeddings_hold_the_same_factors() -> None:
    check_rows("embedding", " 64")


def test_contenders_with_other_factors_are_found_out() -> None:
    row = script("rows").row_named("linear lowrank 32×1024")
    modules, x = row.contenders(), row.input()
    modules["by hand, two linear maps"].get_submodule("0").weight.data[0] += 1
    with pytest.raises(AssertionError, match="do not hold the same factors"):
        script("run").check_equal(modules, x)


def test_every_preset_that_serves_the_convolution_has_a_row() -> None:
    plain = [presets[name] for name in presets if not presets[name].pivoted]
    serving = {row.name for row in plain if "o i h w" in row.layouts}
    assert serving == {row.format for row in script("rows").rows() if row.kind == "conv"} - {"tt"}


def test_rows_have_names_of_their_own_and_comparable_sizes() -> None:
    rows = script("rows").rows()
    assert len({row.name for row in rows}) == len(rows)
    sizes = [row.layer().weight.numel() for row in rows if row.kind in ("linear", "conv")]
    assert max(sizes[:8]) <= 1.1 * min(sizes[:8]) and max(sizes[8:]) <= 1.1 * min(sizes[8:])


class Wasteful(nn.Module):
    """A layer that needs many megabytes for a moment."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        self.weight, self.megabytes = nn.Parameter(torch.ones(1)), megabytes

    def forward(self, x: Tensor) -> Tensor:
        waste = torch.ones(self.megabytes, 2**18)
        return x * self.weight * waste[0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_counts_what_a_pass_takes_and_gives_back() -> None:
    x = torch.ones(4, requires_grad=True)
    small, large = (script("memory").one_pass(Wasteful(n), x, torch.ones(4)) for n in (1, 65))
    assert 60 * 2**20 < large - small < 70 * 2**20


def record(**times: float) -> dict[str, Any]:
    """What a row of a result looks like."""
    return {
        "row": "linear cp 32×1024",
        "kind": "linear",
        "format": "cp",
        "input": [32, 1024],
        "threads": 2,
        "parameters": 16384,
        "median_us": {"forward": {"dense": 400.0, "by hand, a": 120.0, "by hand, b": 100.0, **times}},
    }


def test_the_table_takes_the_fastest_and_marks_what_is_missed() -> None:
    table = script("table")
    fine = record(ours=110.0, **{"TensorLy-Torch, factorized": 400.0, "TensorLy-Torch, reconstructed": 900.0})
    assert table.times_of(fine, 1.15) == [
        "| linear cp | 32×1024 | 16,384 | forward | 400 | 100 | 400 | 110 | 1.10 | 3.6 |"
    ]
    slow = record(ours=150.0, **{"TensorLy-Torch, factorized": 300.0})
    assert table.times_of(slow, 1.15)[0].endswith("| 150 | **1.50** | **2.0** |")
    assert table.times_of(record(ours=100.0), 1.15)[0].endswith("| – | 100 | 1.00 | – |")
    fine["peak_bytes"] = {
        "dense": 4e6, "by hand, a": 1e6, "by hand, b": 2e6, "TensorLy-Torch, factorized": 1e6, "ours": 3e6,
    }  # fmt: skip
    assert table.memory_of(fine) == "| linear cp | 32×1024 | 4.0 | 2.0 | 1.0 | **3.0** |"


def test_examples_in_docstrings_run() -> None:
    assert doctest.testmod(script("table")).failed == 0


@pytest.mark.slow
def test_a_row_is_measured_and_the_others_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    kept = record(ours=100.0) | {"row": "of another time"}
    out.write_text(json.dumps({"records": [kept]}))
    command = [
        sys.executable,
        str(FOLDER / "run.py"),
        "--out",
        str(out),
        "--seconds",
        "0.01",
        "--threads",
        "1",
    ]
    subprocess.run([*command, "--row", "linear lowrank 32×1024"], check=True, capture_output=True)
    result = json.loads(out.read_text())
    found, last = result["records"]
    assert last == kept and found["row"] == "linear lowrank 32×1024" and found["threads"] == 1
    assert set(found["median_us"]) == {"forward", "forward+backward"}
    assert min(found["rounds"].values()) >= 20 and set(found["peak_bytes"]) == set(
        found["median_us"]["forward"]
    )
    assert found["peak_bytes"]["dense"] > found["peak_bytes"]["ours"] > 0
    assert result["machine"]["versions"]["torch"] == torch.__version__
    assert "linear lowrank" in script("table").table({**result, "records": [found]})
