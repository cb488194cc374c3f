"""Factorized layers of every format and type, for the tests of what acts on bonds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tenfold.formats import formats
from tenfold.nn import (
    FactorizedConv,
    FactorizedConvTranspose,
    FactorizedEmbedding,
    FactorizedEmbeddingBag,
    FactorizedLinear,
)

LAYOUTS = {
    "lowrank": "o i -> o i",
    "sliced_lowrank": "o (i0=3 i1) -> o i0 i1",
    "kronecker": "(o0=3 o1) (i0=3 i1) -> o0 i0 o1 i1",
    "tt": "(o0=3 o1=2 o2) (i0=3 i1=2 i2) -> (o0 i0) (o1 i1) (o2 i2)",
}
"""How a linear weight 12 × 18 is seen in each format."""

FEW = ("cp", "sliced_lowrank", "tt", "tucker")
ALL_LAWS = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in formats]
"""Every format, those but a few in the long run only: laws that compile and export take a second each."""

Make = Callable[[], nn.Module]


def linear(format: str, rank: object = 3, dtype: torch.dtype = torch.float64) -> FactorizedLinear:
    torch.manual_seed(0)
    layout = LAYOUTS.get(format, "(o0=3 o1) (i0=3 i1) -> o0 o1 i0 i1")
    return FactorizedLinear(18, 12, rank=rank, format=format, layout=layout, dtype=dtype)


def conv(format: str, layout: str, rank: object) -> FactorizedConv:
    torch.manual_seed(0)
    return FactorizedConv(6, 8, (3, 3), rank=rank, format=format, layout=layout, dtype=torch.float64)


def transposed() -> nn.Module:
    torch.manual_seed(0)
    return FactorizedConvTranspose(
        6, 8, (3, 3), rank=(3, 4, None), format="tucker", layout="i o h w -> i o (h w)", dtype=torch.float64
    )


def table(kind: type, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return kind(20, 12, dtype=torch.float64, **options)


TRAIN = {"format": "tt", "rank": 4, "layout": "(v0=4 v1) (o0=3 o1) -> (v0 o0) (v1 o1)"}

LAYERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    **{f"linear {name}": (lambda name=name: linear(name), (5, 18)) for name in formats},
    "tucker2": (lambda: conv("tucker", "o i h w -> o i (h w)", (4, 3, None)), (2, 6, 7, 7)),
    "cp conv": (lambda: conv("cp", "o i h w -> o i h w", 4), (2, 6, 7, 7)),
    "tt conv": (lambda: conv("tt", "o i h w -> i h w o", (3, 3, 3)), (2, 6, 7, 7)),
    "transposed": (lambda: transposed(), (2, 6, 4, 4)),
    "embedding": (lambda: table(FactorizedEmbedding, rank=4, padding_idx=3), (4, 3)),
    "tt embedding": (lambda: table(FactorizedEmbedding, **TRAIN), (4, 3)),
    "embedding bag": (lambda: table(FactorizedEmbeddingBag, rank=4), (4, 3)),
}


def case(name: str) -> tuple[nn.Module, Tensor]:
    """A layer in training, and an input."""
    make, shape = LAYERS[name]
    layer = make()
    torch.manual_seed(1)
    if isinstance(layer, FactorizedEmbedding | FactorizedEmbeddingBag):
        return layer, torch.randint(20, shape)
    return layer, torch.randn(shape, dtype=torch.float64)
