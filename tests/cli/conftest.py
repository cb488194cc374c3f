"""A tiny network in a file, its weights, and a few images; and a way to call the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from tenfold.cli import app

NETWORK = """
import torch
from torch import nn

print("a module that prints")
fixed = nn.Linear(3, 3)
telling = nn.Linear(3, 3)
telling.register_forward_hook(lambda *_: print("a pass that prints"))
number = 3


def net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )


def failing():
    raise KeyError("no such thing")


def needing(width):
    return net()


def text():
    return "a text"
"""


def tiny() -> nn.Module:
    """What `net` of the file makes."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with net.py, dense.safetensors, images.npz and test.npz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "net.py").write_text(NETWORK)
    torch.manual_seed(0)
    save_file(tiny().state_dict(), tmp_path / "dense.safetensors")
    for name, count in (("images", 60), ("test", 20)):
        labels = np.arange(count) % 2
        pixels = np.random.default_rng(0).random((count, 8, 8)) * 0.5 + 0.5 * labels[:, None, None]
        np.savez(tmp_path / f"{name}.npz", images=pixels, labels=labels)
    return tmp_path


class Called:
    """What a call printed, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.out)


Call = Callable[..., Called]


@pytest.fixture
def call() -> Call:
    """The command line in this process; exceptions that it does not handle are raised."""

    def called(*arguments: str) -> Called:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Called(result.exit_code, result.stdout, result.stderr)

    return called


@pytest.fixture
def refused(work: Path, call: Call) -> Call:
    """A call that has to fail with exit code 2 and write nothing; returns what it said on stderr."""

    def checked(*arguments: str) -> Called:
        before = {p: p.stat().st_mtime_ns for p in work.rglob("*") if "__pycache__" not in p.parts}
        result = call(*arguments)
        after = {p: p.stat().st_mtime_ns for p in work.rglob("*") if "__pycache__" not in p.parts}
        assert result.code == 2, result.out + result.err
        assert {p: t for p, t in after.items() if p.is_file()} == {
            p: t for p, t in before.items() if p.is_file()
        }
        assert set(after) == set(before)
        assert result.out == ""
        return result

    return checked
