"""The examples run, and say what they promise."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    "name, promised",
    [
        ("decompose_a_tensor.py", ["STHOSVD  ranks {'R0': 4, 'R1': 4, 'R2': 4}", "one slice: (30, 4)"]),
        ("compress_a_network.py", ["features.3   tucker", "parameters kept 10.", "before tuning"]),
        ("train_a_3d_network.py --quick", ["dense       339,596", "tucker       8"]),
    ],
)
def test_example_runs(
    name: str, promised: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, *options = name.split()
    monkeypatch.setattr(sys, "argv", [file, *options])
    runpy.run_path(str(EXAMPLES / file), run_name="__main__")
    out = capsys.readouterr().out
    assert all(text in out for text in promised)
