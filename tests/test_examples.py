"""The examples run, and say what they promise."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    "name, promised",
    [
        ("decompose_a_tensor.py", ["STHOSVD  ranks {'R0': 4, 'R1': 4, 'R2': 4}", "one slice: (30, 4)"]),
        ("compress_a_network.py", ["features.3   tucker", "parameters kept 10.", "before tuning"]),
    ],
)
def test_example_runs(name: str, promised: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    out = capsys.readouterr().out
    assert all(text in out for text in promised)
