"""The language model of the examples trains, dense and factorized."""

import runpy
import sys
from pathlib import Path

import pytest
from torch import nn

EXAMPLE = Path(__file__).parent.parent / "examples" / "train_language_model.py"


def test_a_quick_run_prints_both_models_one_four_times_smaller(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--steps", "3", "--seed", "0", "1"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    table = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in table] == ["dense", "factorized"]
    dense, small = (int(row[1].replace(",", "")) for row in table)
    assert dense >= 4 * small
    assert all(float(row[2]) < 4 for row in table), "guessing among 27 letters loses 3.3 nats"


def test_the_factorized_model_has_no_dense_weight() -> None:
    example = runpy.run_path(str(EXAMPLE))
    model = example["LanguageModel"](example["KINDS"]["factorized"])
    kinds = {type(module) for module in model.modules()}
    assert not kinds & {nn.Linear, nn.Embedding, nn.MultiheadAttention}
