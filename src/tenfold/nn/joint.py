"""Several layers of one shape as the slices of one factorized tensor."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.core.layout import Layout
from tenfold.formats import Format, Ranks, formats
from tenfold.nn.base import Decompose, FactorizedLayer, replacement
from tenfold.nn.tensor.shared_factors import SharedFactors, SharingTensor

TABLES = (nn.Embedding, nn.EmbeddingBag)


def joint(
    layers: Sequence[nn.Module],
    method: Decompose,
    ranks: Ranks | None,
    layout: str,
    example: Sequence[int] | None = None,
) -> nn.ModuleList:
    """Factorized layers whose weights are the slices of one tensor, which `method` fits to all of them.

    The tensor has one mode more than a single weight, and before its others: the number of the layer, so
    `ranks` begin with the bond of that mode. A layer stores its own slice of the factor with the layers'
    mode: a row for CP and Tucker, a matrix for a ring. All other factors are shared: stored once, in
    `weight.shared` of every layer. A layer runs with its slice, and the whole tensor is never made. Biases
    are each layer's own, and so are settings such as a stride.

    The layers may be put at different places of a model. A copy of a single layer has factors of its own.

    Source: Kossaifi, Bulat, Tzimiropoulos, Pantic, 'T-Net: parametrizing fully convolutional nets with a
    single high-order tensor', CVPR 2019, arXiv:1904.02698.

    Raises:
        OptionError: without layers.
        UnsupportedError: for layers of several types, or a type that has no factorized form.
        ShapeError: for weights of several shapes.

    >>> from tenfold.decompose import STHOSVD
    >>> dense = [nn.Linear(12, 8) for _ in range(5)]
    >>> small = joint(dense, STHOSVD(), (3, 4, 6), "o i -> o i")
    >>> [f.shape for f in small[0].weight.value.factors], small[1](torch.zeros(2, 12)).shape
    ([torch.Size([3, 4, 6]), torch.Size([3]), torch.Size([8, 4]), torch.Size([12, 6])], torch.Size([2, 8]))
    >>> sum(p.numel() for p in small.parameters()) == 5 * 3 + 3 * 4 * 6 + 8 * 4 + 12 * 6 + 5 * 8
    True
    """
    kind, bound = _checked(layers, layout)
    dtype = layers[0].get_parameter("weight").dtype
    tensor = torch.stack([kind.tensor_of(dense, bound) for dense in layers])
    value: Format = method(tensor, ranks).value
    return slices_of(value.map(lambda f: f.to(dtype)), kind, layers, bound, example)


def joint_random(
    layers: Sequence[nn.Module],
    ranks: Ranks,
    format: str,
    layout: str,
    *,
    std: float | None = None,
    example: Sequence[int] | None = None,
) -> nn.ModuleList:
    """As `joint`, with random factors; of the dense layers only settings, biases and shapes matter.

    Each weight has deviation `std`: if it is not given, that with which torch's layers begin, 1 for tables
    and 1 / sqrt(3 fan_in) for others. A fraction is of the parameters of all weights together.

    >>> dense = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)]
    >>> small = joint_random(dense, 0.1, "cp", "o i h w -> o i (h w)")
    >>> small[3](torch.zeros(1, 8, 5, 5)).shape
    torch.Size([1, 8, 5, 5])
    """
    kind, bound = _checked(layers, layout)
    weight = layers[0].get_parameter("weight")
    if std is None:
        std = 1.0 if isinstance(layers[0], TABLES) else 1 / math.sqrt(3 * math.prod(weight.shape[1:]))
    shape = (len(layers), *bound.mode_shape)
    value = formats[format].random(shape, ranks, like=weight.detach(), std=std)
    return slices_of(value, kind, layers, bound, example)


def slices_of(
    value: Format,
    kind: type[FactorizedLayer],
    layers: Sequence[nn.Module],
    layout: Layout,
    example: Sequence[int] | None,
) -> nn.ModuleList:
    """A layer for each slice of the first mode of `value`, with the settings and biases of `layers`."""
    made = [kind.from_dense(dense, value[k], layout, example) for k, dense in enumerate(layers)]
    names, mode = made[0].weight.names, value.network.modes[0]
    share(made, _name(value), [n for n, f in zip(names, value.network.factors, strict=True) if mode not in f])
    return nn.ModuleList(made)


def share(layers: Sequence[FactorizedLayer], kind: str, common: Sequence[str]) -> None:
    """Let the layers have the factors called `common` of the first one, in a `SharedFactors` of this kind.

    Raises:
        UnsupportedError: if the layers store their factors in different orders or shapes.
    """
    first = layers[0].weight
    if any(layer.weight.stored != first.stored for layer in layers):
        raise UnsupportedError(
            "the settings of the layers differ so much that their steps are planned differently.",
            "Give layers of one setting, or an `example` input.",
        )
    shared = SharedFactors(kind, {name: first.get_parameter(name) for name in common})
    for layer in layers:
        layer.weight = SharingTensor.over(layer.weight, shared)


def _checked(layers: Sequence[nn.Module], layout: str) -> tuple[type[FactorizedLayer], Layout]:
    if not layers:
        raise OptionError("no layers came.", "Give at least one.")
    if len({type(dense) for dense in layers}) > 1:
        names = ", ".join(sorted({type(dense).__name__ for dense in layers}))
        raise UnsupportedError(f"layers of several types came: {names}.", "Give layers of one type.")
    kind = replacement(layers[0])
    shapes = {tuple(dense.get_parameter("weight").shape) for dense in layers}
    if len(shapes) > 1:
        raise ShapeError(f"weights of several shapes came: {sorted(shapes)}.", "Give layers of one shape.")
    bound = kind.bound(layers[0], layout)
    if problem := next((p for dense in layers if (p := kind.refusal(dense, bound))), ""):
        raise UnsupportedError(f"{problem}.", "Change the setting, or the layout.")
    return kind, bound


def _name(value: Format) -> str:
    return next((name for name in formats if formats[name] is type(value)), type(value).__name__)
