"""Every registered replacement obeys the laws of layers."""

from typing import Any

import pytest
import torch
from torch import nn

from tenfold.decompose import CPALS, HOOI, TTSVD, Method, SlicedSVD, TruncatedSVD
from tenfold.nn import REPLACEMENTS, replacement
from tenfold.nn.base import FactorizedLayer
from tenfold.testing import check_layer

CASES: list[tuple[nn.Module, Method[Any], Any, str, tuple[int, ...]]] = [
    (nn.Linear(12, 18), TruncatedSVD(), 3, "o i -> o i", (3, 12)),
    (nn.Linear(12, 18), TTSVD(), 3, "(o0=3 o1) (i0=2 i1) -> (o0 i0) (o1 i1)", (3, 12)),
    (nn.Conv1d(8, 12, 3), TTSVD(), 4, "o i w -> o i w", (2, 8, 9)),
    (nn.Conv2d(8, 12, 3, padding=1), CPALS(max_steps=5), 4, "o i h w -> o i h w", (2, 8, 7, 7)),
    (nn.Conv2d(8, 12, 3, stride=2, bias=False), HOOI(), (4, 4, None), "o i h w -> o i (h w)", (2, 8, 7, 7)),
    (nn.Conv2d(8, 12, 3, groups=2), TruncatedSVD(), 4, "(g=2 o) i h w -> (g i h) (o w)", (2, 8, 7, 7)),
    (nn.Linear(12, 18), SlicedSVD(), 2, "o (i0=3 i1) -> o i0 i1", (3, 12)),
    (nn.Conv2d(8, 12, 3, padding=1), SlicedSVD(), 2, "o (i0=4 i1) h w -> o i0 (i1 h w)", (2, 8, 7, 7)),
    (nn.Embedding(20, 12, 3), TruncatedSVD(), 3, "v o -> v o", (3, 4)),
    (nn.EmbeddingBag(20, 12), TTSVD(), 3, "(v0=4 v1) (o0=3 o1) -> (v0 o0) (v1 o1)", (3, 4)),
    (nn.Conv3d(4, 6, 2), HOOI(), (3, 3, None), "o i d h w -> o i (d h w)", (2, 4, 4, 5, 5)),
]


def decomposed(
    dense: nn.Module, method: Method[Any], ranks: Any, layout: str, dtype: torch.dtype
) -> FactorizedLayer:
    torch.manual_seed(0)
    return replacement(dense).decomposed(dense.to(dtype), method, ranks, layout)


@pytest.mark.filterwarnings("ignore::tenfold.core.errors.ConvergenceWarning")  # five steps of CP
@pytest.mark.parametrize(
    "dense, method, ranks, layout, shape", CASES, ids=lambda x: str(x) if isinstance(x, str) else ""
)
def test_layer_obeys_every_law(
    dense: nn.Module, method: Method[Any], ranks: Any, layout: str, shape: tuple[int, ...]
) -> None:
    layer = decomposed(dense, method, ranks, layout, torch.float64)
    gathers = layer.program.gathers
    x = torch.randint(layer.weight.shape[0], shape) if gathers else torch.randn(shape, dtype=torch.float64)
    check_layer(layer, x)


def test_every_registered_layer_is_in_the_table() -> None:
    missing = set(REPLACEMENTS) - {type(case[0]) for case in CASES}
    assert not missing, f"add a case for {sorted(t.__name__ for t in missing)}"
