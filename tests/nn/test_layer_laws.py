"""Every layer type obeys the laws of layers: in every format, layout and option."""

from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn

from tenfold.decompose import CPALS, HOOI, TTSVD, Method, SlicedSVD, TruncatedSVD
from tenfold.formats import formats
from tenfold.nn import OPENINGS, REPLACEMENTS, replacement
from tenfold.nn.base import FactorizedLayer
from tenfold.testing import check_layer
from tenfold.testing.citizenship import CITIZENSHIP
from tenfold.testing.every_law import EVERY_LAW, TRACED, check_case, every_case, laws_of
from tenfold.testing.layer_cases import FAMILIES, cases, columns
from tenfold.testing.layer_family import Case
from tenfold.testing.layer_gaps import GAPS, gap

# What torch says of itself: slow fallbacks of vmap, and its own LSTM and convolution
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}:UserWarning")
    for start in (
        "There is a performance drop because we have not yet implemented the batching rule",
        r"torch.searchsorted\(\). input value tensor is non-contiguous",
        "LSTM with projections is not supported with oneDNN",
    )
]

IN_ALL_FORMATS = ("dense_twin", "to_dense", "state_dict", "meta", "autocast", "ensemble")
"""Of every format in the quick run; in the long run all laws are."""
LONG = ("RNN", "LSTM", "GRU", "MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer")
"""Those that take several seconds to compile; they have shorter tests of it in files of their own."""
BEYOND = [law.__name__.removeprefix("check_") for law in CITIZENSHIP]
QUICK = [law for law in EVERY_LAW if law not in TRACED and law not in BEYOND]
PAIRS = list(every_case())


def turn(layer: str, k: int) -> str:
    """A format that changes with the layer and `k`, so that all take part."""
    choices = list(columns(layer))
    return choices[(list(FAMILIES).index(layer) + k) % len(choices)]


def with_options(layer: str) -> list[Case]:
    """Every option of a layer but the first, each in another format."""
    found = []
    for k, options in enumerate(FAMILIES[layer].options[1:]):
        found += [case for case in cases(layer, turn(layer, k)) if case.options == options]
    return found


@pytest.mark.parametrize("layer, format", PAIRS)
def test_a_layer_of_every_format_obeys_the_laws(layer: str, format: str) -> None:
    check_case(cases(layer, format)[0], IN_ALL_FORMATS)


@pytest.mark.parametrize("case", list(chain.from_iterable(map(with_options, FAMILIES))), ids=str)
def test_a_layer_with_every_option_obeys_the_laws(case: Case) -> None:
    check_case(case, QUICK)


@pytest.mark.parametrize(
    "layer", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in FAMILIES]
)
def test_a_layer_of_every_type_compiles_and_exports(layer: str) -> None:
    check_case(cases(layer, turn(layer, 0))[0], ["compile", "export"])


@pytest.mark.slow
@pytest.mark.parametrize("layer, format", PAIRS)
def test_every_law_holds_for_every_format_layout_and_option(layer: str, format: str) -> None:
    for case in cases(layer, format):
        check_case(case, laws_of(case))


def test_every_registered_layer_and_format_is_among_the_cases() -> None:
    names = {kind.__name__ for kind in REPLACEMENTS} | {name.rpartition(".")[2] for name in OPENINGS}
    assert names - set(FAMILIES) <= {"Conv1D"}, "a type that is opened as another layer needs no case"
    for layer, family in FAMILIES.items():
        assert not family.layouts or {f for name, f in PAIRS if name == layer} == set(formats)
    for found in every_case().values():
        assert found, "each format has a layout that it holds"


def test_every_gap_is_met_by_a_case() -> None:
    everything = list(chain.from_iterable(every_case().values()))
    for known in GAPS:
        assert any(gap(known.law, case) is known for case in everything), f"no case has the gap {known}"
        assert known.law in EVERY_LAW


# Decomposed layers ------------------------------------------------------------------------------------------

FITTED: list[tuple[nn.Module, Method[Any], Any, str, tuple[int, ...]]] = [
    (nn.Linear(12, 18), TTSVD(), 3, "(o0=3 o1) (i0=2 i1) -> (o0 i0) (o1 i1)", (3, 12)),
    (nn.Conv2d(8, 12, 3, padding=1), CPALS(max_steps=5), 4, "o i h w -> o i h w", (2, 8, 7, 7)),
    (nn.Conv2d(8, 12, 3, stride=2, bias=False), HOOI(), (4, 4, None), "o i h w -> o i (h w)", (2, 8, 7, 7)),
    (nn.Conv2d(8, 12, 3, groups=2), TruncatedSVD(), 4, "(g=2 o) i h w -> (g i h) (o w)", (2, 8, 7, 7)),
    (nn.Linear(12, 18), SlicedSVD(), 2, "o (i0=3 i1) -> o i0 i1", (3, 12)),
    (nn.Embedding(20, 12, 3), TruncatedSVD(), 3, "v o -> v o", (3, 4)),
    (nn.Conv3d(4, 6, 2), HOOI(), (3, 3, None), "o i d h w -> o i (d h w)", (2, 4, 4, 5, 5)),
]


def decomposed(dense: nn.Module, method: Method[Any], ranks: Any, layout: str) -> FactorizedLayer:
    torch.manual_seed(0)
    return replacement(dense).decomposed(dense.to(torch.float64), method, ranks, layout)


@pytest.mark.filterwarnings("ignore::tenfold.core.errors.ConvergenceWarning")  # five steps of CP
@pytest.mark.parametrize(
    "dense, method, ranks, layout, shape", FITTED, ids=lambda x: str(x) if isinstance(x, str) else ""
)
def test_a_decomposed_layer_obeys_every_law(
    dense: nn.Module, method: Method[Any], ranks: Any, layout: str, shape: tuple[int, ...]
) -> None:
    torch.compiler.reset()
    layer = decomposed(dense, method, ranks, layout)
    gathers = layer.program.gathers
    x = torch.randint(layer.weight.shape[0], shape) if gathers else torch.randn(shape, dtype=torch.float64)
    check_layer(layer, x)
