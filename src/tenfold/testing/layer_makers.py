"""How the layers that the laws are run on are made and called, from their options."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.layout import Layout
from tenfold.nn import TRL, FactorizedMultiheadAttention, joint_random
from tenfold.testing.calls import Call
from tenfold.testing.layer_family import DTYPE, Options, indices, modes_of, numbers


def grouped(layout: str, groups: int) -> str:
    """The layout of a kernel in groups, whose axis stands before the first of the kernel."""
    if groups == 1:
        return layout
    parsed = Layout.parse(layout)
    return str(parsed.with_axis("g", parsed.weight[0][0], groups))


def kernel(kind: Any, order: int) -> Callable[[Options], nn.Module]:
    """A convolution, ordinary or transposed, with options for as many axes as it has."""

    def make(options: Options) -> nn.Module:
        own: dict[str, Any] = {k: v[:order] if isinstance(v, tuple) else v for k, v in options.items()}
        own["layout"] = grouped(own["layout"], own.get("groups", 1))
        layer: nn.Module = kind(8, 12, (3, 2, 3)[:order], rank=2, **own, dtype=DTYPE)
        return layer

    return make


UNSPLIT = {3: "v (o0=2 o1) -> v o0 o1", 4: "v (o0=2 o1=2 o2) -> v o0 o1 o2", 2: "v o -> v o"}
"""Layouts of a table whose vocabulary is in one axis, as sparse gradients want it, by order."""


def table(kind: Any) -> Callable[[Options], nn.Module]:
    """An embedding, or a bag of them."""

    def make(options: Options) -> nn.Module:
        own = dict(options)
        own.pop("offsets", None)
        if own.get("sparse"):
            own["layout"] = UNSPLIT[len(modes_of(own["layout"]))]
        layer: nn.Module = kind(12, 8, rank=2, **own, dtype=DTYPE)
        return layer

    return make


def bags(options: Options) -> Call:
    """Bags as the rows of an array; or with offsets, three bags of which one is empty, over and over."""
    if "offsets" not in options:
        return Call(lambda n: (indices(2 * n, 5),))

    def make(n: int) -> tuple[Tensor, ...]:
        starts = torch.arange(n).unsqueeze(1) * 5 + torch.tensor([0, 2, 2])
        ends = [torch.tensor([5 * n])] if options.get("include_last_offset") else []
        return indices(5 * n), torch.cat([starts.flatten(), *ends])

    return Call(make, (0, 0))


def recurrent(kind: Any) -> Callable[[Options], nn.Module]:
    """A recurrent layer, without dropout."""

    def make(options: Options) -> nn.Module:
        layer: nn.Module = kind(6, 8, rank=2, **options, dtype=DTYPE)
        return layer

    return make


def sequences(options: Options) -> Call:
    """(time, batch, features) or, with `batch_first`, (batch, time, features)."""
    if options.get("batch_first"):
        return Call(lambda n: (numbers(2 * n, 2, 6),))
    return Call(lambda n: (numbers(2, 2 * n, 6),), (1,))


def attention(options: Options) -> nn.Module:
    """Attention of two heads."""
    own = dict(options)
    own.pop("need_weights", None)
    return FactorizedMultiheadAttention(8, 2, rank=2, **own, dtype=DTYPE)


def attended(options: Options) -> Call:
    """Queries, and other keys and values."""
    sizes = (8, options.get("kdim", 8), options.get("vdim", 8))
    settings = {k: options[k] for k in ("need_weights",) if k in options}
    lengths = (3, 4, 4)

    def make(n: int) -> tuple[Tensor, ...]:
        given = (numbers(t, 2 * n, size) for t, size in zip(lengths, sizes, strict=True))
        return tuple(x.transpose(0, 1).contiguous() if options.get("batch_first") else x for x in given)

    axis = 0 if options.get("batch_first") else 1
    return Call(make, (axis,) * 3, settings)


def transformer(kind: Any) -> Callable[[Options], nn.Module]:
    """A layer of a transformer, without dropout."""

    def make(options: Options) -> nn.Module:
        layer: nn.Module = kind(8, 2, 12, 0.0, rank=2, **options, dtype=DTYPE)
        return layer

    return make


def embedded(inputs: int) -> Callable[[Options], Call]:
    """So many sequences of the width of the transformer layers, the second one longer."""

    def call(options: Options) -> Call:
        first = bool(options.get("batch_first"))

        def make(n: int) -> tuple[Tensor, ...]:
            given = (numbers(3 + k, 2 * n, 8) for k in range(inputs))
            return tuple(x.transpose(0, 1).contiguous() if first else x for x in given)

        return Call(make, (0 if first else 1,) * inputs)

    return call


def joined(dense: Callable[[], nn.Module], rank: Any = 2) -> Callable[[Options], nn.Module]:
    """One of three layers that share a tensor."""

    def make(options: Options) -> nn.Module:
        layers = [dense() for _ in range(3)]
        return joint_random(layers, rank, options["format"], options["layout"])[1]

    return make


def regression(options: Options) -> TRL:
    """A regression between tensors of order two."""
    own = dict(options)
    return TRL((4, 3), (2, 3), rank=2, modes=own.pop("layout"), **own, dtype=DTYPE)
