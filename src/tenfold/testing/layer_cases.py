"""Small layers of every type, option and format, for the laws; a new format is in them by itself."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from tenfold.formats import formats
from tenfold.nn import (
    TCL,
    FactorizedBilinear,
    FactorizedConv,
    FactorizedConvTranspose,
    FactorizedEmbedding,
    FactorizedEmbeddingBag,
    FactorizedGRU,
    FactorizedLinear,
    FactorizedLSTM,
    FactorizedRNN,
    FactorizedTransformerDecoderLayer,
    FactorizedTransformerEncoderLayer,
)
from tenfold.nn.convolution.kernel import SPATIAL
from tenfold.testing.calls import Call
from tenfold.testing.layer_family import DTYPE, Case, Family, Options, holds, indices, modes_of, numbers
from tenfold.testing.layer_gaps import inapplicable
from tenfold.testing.layer_makers import (
    attended,
    attention,
    bags,
    embedded,
    joined,
    kernel,
    recurrent,
    regression,
    sequences,
    table,
    transformer,
)


def cases(layer: str, format: str) -> list[Case]:
    """The usual layout with every option, and every other layout without options.

    >>> [str(case) for case in cases("TCL", "")][:2]
    ['TCL()', 'TCL(bias=False)']
    """
    family = FAMILIES[layer]
    if not family.layouts:
        return [Case(layer, family, "", "", o) for o in family.options]
    held = [text for text in family.layouts if holds(format, len(modes_of(text)) + family.hidden)]
    first = [Case(layer, family, format, held[0], o) for o in family.options]
    others = [Case(layer, family, format, text, family.options[0]) for text in held[1:]]
    return [case for case in first + others if not inapplicable(case)]


def columns(layer: str) -> Iterator[str]:
    """The formats that a layer can have; "" alone where it has no choice of one."""
    return iter(formats if FAMILIES[layer].layouts else [""])


def convolutions(order: int) -> Family:
    """Convolutions of this order."""
    axes = " ".join(SPATIAL[order])
    *front, last = SPATIAL[order]
    return Family(
        (
            f"o i {axes} -> o i ({axes})",
            f"o (i0=2 i1) {axes} -> o i0 i1 ({axes})",
            f"o i {axes} -> (i {' '.join(front)}) (o {last})",
            f"(o0=2 o1) (i0=2 i1) {axes} -> (o0 i0) (o1 i1 {axes})",
        ),
        (
            {},
            {"stride": 2, "padding": 1, "bias": False},
            {"stride": (1, 2, 1), "padding": (0, 2, 1), "dilation": (1, 1, 2)},
            {"padding": "valid", "dilation": 2},
            {"padding": (2, 0, 1), "padding_mode": "circular"},
            {"padding": 1, "padding_mode": "reflect", "stride": 2},
            {"padding": 1, "padding_mode": "replicate"},
            {"groups": 2, "padding": 1},
            {"groups": 4, "stride": 2, "bias": False},
        ),
        kernel(FactorizedConv, order),
        lambda _: Call(lambda n: (numbers(2 * n, 8, *(6, 5, 7)[:order]),)),
    )


def transposed(order: int) -> Family:
    """Transposed convolutions of this order."""
    axes = " ".join(SPATIAL[order])
    *front, last = SPATIAL[order]
    return Family(
        (
            f"i o {axes} -> o i ({axes})",
            f"(i0=2 i1) o {axes} -> o i0 i1 ({axes})",
            f"i o {axes} -> (i {' '.join(front)}) (o {last})",
        ),
        (
            {},
            {"stride": 2, "padding": 1, "output_padding": 1, "bias": False},
            {"stride": (1, 2, 1), "padding": (0, 1, 1), "dilation": (1, 2, 2), "output_padding": (0, 1, 1)},
            {"groups": 2, "stride": 2},
            {"groups": 4, "dilation": 2, "bias": False},
        ),
        kernel(FactorizedConvTranspose, order),
        lambda _: Call(lambda n: (numbers(2 * n, 8, *(4, 3, 3)[:order]),)),
    )


MATRIX = (
    "(o0=2 o1) i -> o0 o1 i",
    "(o0=2 o1) (i0=2 i1) -> o0 i0 o1 i1",
    "o i -> o i",
    "(o0=2 o1) (i0=2 i1) -> (o0 i0) (o1 i1)",
)
"""Layouts of a matrix (outputs, inputs)."""
ROWS = (
    "(v0=3 v1) o -> v0 v1 o",
    "(v0=3 v1) (o0=2 o1) -> v0 o0 v1 o1",
    "v o -> v o",
    "(v0=3 v1) (o0=2 o1) -> (v0 o0) (v1 o1)",
)
"""Layouts of a table (rows, outputs)."""
RECURRENT: tuple[Options, ...] = (
    {},
    {"bias": False},
    {"batch_first": True},
    {"bidirectional": True},
    {"num_layers": 2},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
)


def recurrents(kind: Any, *further: Options) -> Family:
    """The family of a recurrent layer type."""
    return Family(MATRIX, (*RECURRENT, *further), recurrent(kind), sequences)


TRANSFORMER: tuple[Options, ...] = (
    {},
    {"batch_first": True},
    {"norm_first": True, "activation": "gelu"},
    {"bias": False},
)


def shared(layouts: Sequence[str], dense: Callable[[], nn.Module], call: Callable[[int], Tensor]) -> Family:
    """The family of joint layers; with the mode of the layers, a layout has one mode more than it shows."""
    return Family(layouts, ({},), joined(dense), lambda _: Call(lambda n: (call(n),)), 1)


FAMILIES: dict[str, Family] = {
    "Linear": Family(
        MATRIX,
        ({}, {"bias": False}, {"example": (1, 6)}, {"example": (10**6, 6)}),
        lambda o: FactorizedLinear(6, 8, rank=2, **o, dtype=DTYPE),
        lambda _: Call(lambda n: (numbers(2 * n, 3, 6),)),
    ),
    "Bilinear": Family(
        (
            "o i0 i1 -> o i0 i1",
            "(o0=2 o1) i0 i1 -> o0 i0 o1 i1",
            "o i0 i1 -> (o i0) i1",
            "o i0 i1 -> o (i0 i1)",
        ),
        ({}, {"bias": False}, {"example": (1, 6)}, {"example": (10**6, 6)}),
        lambda o: FactorizedBilinear(6, 5, 8, rank=2, **o, dtype=DTYPE),
        lambda _: Call(lambda n: (numbers(2 * n, 6), numbers(2 * n, 5)), (0, 0)),
    ),
    **{f"Conv{n}d": convolutions(n) for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": transposed(n) for n in (1, 2, 3)},
    "Embedding": Family(
        ROWS,
        (
            {},
            {"padding_idx": 2},
            {"max_norm": 0.5},
            {"max_norm": 0.5, "norm_type": 1.0, "padding_idx": -1},
            {"scale_grad_by_freq": True},
            {"sparse": True},
            {"padded_to": 18},
            {"example": (10**6,)},
        ),
        table(FactorizedEmbedding),
        lambda _: Call(lambda n: (indices(2 * n, 5),)),
    ),
    "EmbeddingBag": Family(
        ROWS,
        (
            {},
            {"mode": "sum", "offsets": True},
            {"mode": "max"},
            {"mode": "mean", "offsets": True, "include_last_offset": True},
            {"padding_idx": 2},
            {"max_norm": 0.5},
            {"mode": "sum", "sparse": True},
            {"mode": "sum", "scale_grad_by_freq": True},
            {"padded_to": 18},
        ),
        table(FactorizedEmbeddingBag),
        bags,
    ),
    "RNN": recurrents(FactorizedRNN, {"nonlinearity": "relu"}),
    "LSTM": recurrents(FactorizedLSTM, {"proj_size": 4, "proj_rank": 2}),
    "GRU": recurrents(FactorizedGRU),
    "MultiheadAttention": Family(
        MATRIX,
        (
            {},
            {"batch_first": True, "need_weights": False},
            {"bias": False},
            {"add_bias_kv": True, "add_zero_attn": True},
            {"kdim": 6, "vdim": 4},
        ),
        attention,
        attended,
    ),
    "TransformerEncoderLayer": Family(
        MATRIX, TRANSFORMER, transformer(FactorizedTransformerEncoderLayer), embedded(1)
    ),
    "TransformerDecoderLayer": Family(
        MATRIX, TRANSFORMER, transformer(FactorizedTransformerDecoderLayer), embedded(2)
    ),
    "TRL": Family(
        ("i0 i1 (o0 o1)", "i0 o0 i1 o1", "(i0 i1) (o0 o1)"),
        ({}, {"bias": False}, {"example": (10**6, 4, 3)}),
        regression,
        lambda _: Call(lambda n: (numbers(2 * n, 4, 3),)),
    ),
    "TCL": Family(
        (),
        ({}, {"bias": False}, {"output_shape": (2, None)}),
        lambda o: TCL(**{"input_shape": (4, 3), "output_shape": (2, 5), **o}, dtype=DTYPE),
        lambda _: Call(lambda n: (numbers(2 * n, 4, 3),)),
    ),
    "joint Linear": shared(
        ("o i -> o i", "(o0=2 o1) i -> o0 o1 i", "o i -> (o i)"),
        lambda: nn.Linear(6, 8, dtype=DTYPE),
        lambda n: numbers(2 * n, 6),
    ),
    "joint Conv2d": shared(
        ("o i h w -> o (i h w)", "o i h w -> o i (h w)", "o i h w -> (o i h w)"),
        lambda: nn.Conv2d(8, 12, (3, 2), 2, 1, dtype=DTYPE),
        lambda n: numbers(2 * n, 8, 6, 5),
    ),
    "joint Embedding": shared(
        ("v o -> v o", "(v0=3 v1) o -> v0 v1 o", "v o -> (v o)"),
        lambda: nn.Embedding(12, 8, padding_idx=2, dtype=DTYPE),
        lambda n: indices(2 * n, 5),
    ),
}
"""The layer types by the name of the dense type that they replace, or their own."""
