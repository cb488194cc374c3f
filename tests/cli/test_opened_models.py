"""Commands on models whose attention is seen as linear layers, and files of tied weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

Call = Callable[..., Any]

MODEL = """
import torch
from torch import nn


class Rows(nn.Module):
    '''Reads the rows of an image with attention.'''

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        rows = self.first(x.flatten(1, 2))
        return self.head(self.attention(rows, rows, rows)[0].mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 2)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.head(self.two(self.one(x.flatten(1)).relu()).relu())
"""
SHAPE = ("--input-shape", "1,1,8,8", "--preset", "weight_svd")
SITES = [f"{name}.weight" for name in (
    "first", "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj", "head"
)]  # fmt: skip


@pytest.fixture
def models(work: Path) -> Path:
    (work / "models.py").write_text(MODEL)
    return work


def test_a_plan_lists_the_layers_of_attention(models: Path, call: Call) -> None:
    done = call("plan", "models.py:Rows", *SHAPE, "--select", "attention.q_proj=none", "--out", "plan.json")
    assert done.code == 0 and "attention.k_proj" in done.out


def test_compress_and_apply_report_every_layer_of_attention(models: Path, call: Call) -> None:
    options = ("--preset", "weight_svd", "--select", "attention.q_proj=none", "--metric", "none")
    data = ("--data", "images.npz", "--keep", "params=0.6", "--seed", "0")
    done = call("compress", "models.py:Rows", *data, *options, "--out", "small", "--json")
    (row,) = done.json["rows"]
    assert [line["site"] for line in row["layers"]] == SITES
    planned = call(
        "plan", "models.py:Rows", *SHAPE, "--select", "attention.q_proj=none", "--out", "plan.json"
    )
    assert planned.code == 0
    done = call("apply", "models.py:Rows", "--plan", "plan.json", "--seed", "0", "--out", "applied", "--json")
    assert done.code == 0 and [line["site"] for line in done.json["layers"]] == SITES


def test_files_that_name_a_tied_weight_once_are_taken(models: Path, call: Call) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 2)
            self.two.weight = self.one.weight

    save_model(Tied(), str(models / "tied.safetensors"))
    assert call("plan", "models.py:Tied", "--weights", "tied.safetensors", *SHAPE).code == 0


def test_complex_weights_are_not_put_into_real_layers(models: Path, call: Call) -> None:
    layer = nn.Linear(3, 3, dtype=torch.complex64)
    torch.save(layer.state_dict(), models / "complex.pt")
    done = call("plan", "net.py:fixed", "--weights", "complex.pt", "--input-shape", "1,3")
    assert done.code == 2 and "complex in place of real: weight, bias" in done.err
