"""Transduction: a factorized convolution with one more axis, such as time, that computes what it did."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from tenfold.core.errors import LayoutError, OptionError
from tenfold.core.layout import Groups, Layout
from tenfold.core.network import Axis
from tenfold.formats import Format
from tenfold.nn.base import copied
from tenfold.nn.convolution.kernel import SPATIAL, FactorizedKernel
from tenfold.nn.convolution.new_mode import enlarged, with_mode
from tenfold.nn.convolution.options import ConvOptions, Ints

Layer = TypeVar("Layer", bound=FactorizedKernel)
FRESH: Axis = "t"
"""The new axis, until all are named by their places."""


def transduct(
    layer: Layer,
    kernel_size: int,
    axis: int = 0,
    *,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    init: str | Sequence[float] | Tensor = "centre",
    beside: Axis | None = None,
    freeze: bool = False,
    frames: int = 16,
) -> Layer:
    """A copy of a factorized convolution, ordinary or transposed, with a new spatial axis: 2-D to video.

    The kernel becomes K'[o, i, t, h, w] = c[t] K[o, i, h, w], in the same format with the same ranks. The new
    axis gets a mode of its own: in CP another matrix, in a train, a ring or a tree a core on a bond, in
    Tucker and block terms an axis of the core, which stays whole. Formats without room for one, as a matrix
    of low rank, hold it in the mode of a spatial axis: `beside` names that, and asks for it in any format.

    With the `init` "centre" c is 1 at the middle tap, number kernel_size // 2, and 0 elsewhere: on a single
    frame with half the kernel's reach as padding, and in a video wherever the middle tap lies, the new layer
    gives what the old one gave of that frame. With "mean" c is 1 / kernel_size everywhere: so it does on a
    video that does not change, away from its ends. Any numbers that sum to 1 do so too.

    Args:
        kernel_size: taps of the new axis.
        axis: where it stands among the spatial axes; 0 puts time before height and width.
        stride, padding, dilation: of the new axis. A layer that pads in words does so along all of its axes,
            the new one too: `padding` must then be the same word, or the layer's must come out as numbers.
        init: "centre", "mean" or a number for each tap.
        freeze: train the new factor alone, not those of the old layer, nor the bias.
        frames: length of the new axis for which the steps are planned.

    Raises:
        OptionError: for a layer with three axes; for an option out of its range; with `freeze`, where no
            factor is new.
        LayoutError: if `beside` names no spatial axis of the layer.

    Source: transduction, as in Kossaifi et al. 2020, Factorized Higher-Order CNNs, arXiv:1902.06820.

    >>> from tenfold.nn import FactorizedConv
    >>> layer = FactorizedConv(8, 6, (3, 3), rank=4, format="cp", layout="o i h w -> o i h w", padding=1)
    >>> video = transduct(layer, 3, padding=1)
    >>> str(video.layout), video.kernel_size
    ('o i d h w -> o i d h w', (3, 3, 3))
    >>> image = torch.randn(2, 8, 5, 5)
    >>> torch.allclose(video(image.unsqueeze(2)).squeeze(2), layer(image), atol=1e-5)
    True
    """
    check(layer, kernel_size, axis, frames)
    spatial = [group[0] for group in layer.layout.weight[2:]]
    if beside is not None and beside not in spatial:
        raise LayoutError(f"beside came as {beside!r}.", f"Name one of {', '.join(spatial)}, or None.")
    options = extended(layer.options, layer.kernel_size, kernel_size, axis, (stride, padding, dilation))
    taps = numbers(init, kernel_size, options.padding == "same")
    if taps.is_complex() and not layer.weight.dtype.is_complex:
        raise OptionError(f"init is complex for a layer of {layer.weight.dtype}.", "Give real numbers.")
    near = beside or spatial[min(axis, len(spatial) - 1)]
    value, layout, new = grown(layer, near, axis, taps, own=beside is None)
    if freeze and new is None:
        raise OptionError(
            "freeze=True has nothing to train: the new axis has no factor of its own here.",
            "Take freeze=False, or another format.",
        )
    lengths = inserted(layer.lengths, axis, frames)
    example = (layer.batch, layer.in_channels, *lengths)
    made = type(layer).made_of(value, layout, options, copied(layer.bias), example)
    train_only(made, layer, new if freeze else None)
    return made.train(layer.training)


def check(layer: FactorizedKernel, kernel_size: int, axis: int, frames: int) -> None:
    """Raise OptionError unless the layer can get one more axis there."""
    if layer.order == max(SPATIAL):
        raise OptionError(
            f"the layer has {layer.order} spatial axes, and convolutions have no more.",
            "Give one with fewer.",
        )
    if not 0 <= axis <= layer.order:
        raise OptionError(f"axis came as {axis}.", f"Give 0 to {layer.order}.")
    if kernel_size < 1 or frames < 1:
        raise OptionError(f"kernel_size={kernel_size} and frames={frames} came.", "Give 1 or more of each.")


def extended(
    options: ConvOptions, taps: Ints, kernel_size: int, axis: int, own: tuple[int, int | str, int]
) -> ConvOptions:
    """The settings with those of the new axis: its stride, padding and dilation."""
    stride, padding, dilation = own
    ends = options.output_padding
    known = options.padding if options.padding == padding else in_numbers(options, taps)
    if isinstance(known, str) or isinstance(padding, str):
        if known != padding:
            raise OptionError(
                f"padding came as {padding!r} for a layer with padding {options.padding!r}.",
                "Give a number, or the layer's own word.",
            )
        both: Ints | str = padding
    else:
        both = inserted(known, axis, padding)
    return replace(
        options,
        stride=inserted(options.stride, axis, stride),
        padding=both,
        dilation=inserted(options.dilation, axis, dilation),
        output_padding=None if ends is None else inserted(ends, axis, 0),
    )


def in_numbers(options: ConvOptions, taps: Ints) -> Ints | str:
    """The padding in numbers, if words say the same before and after; otherwise as it is."""
    if not isinstance(options.padding, str):
        return options.padding
    ends = [(w.before, w.after) for w in options.windows(taps, taps)]
    return tuple(a for a, _ in ends) if all(a == b for a, b in ends) else options.padding


def numbers(init: str | Sequence[float] | Tensor, count: int, same: bool) -> Tensor:
    """The numbers c, one for each tap; with padding "same" the middle is where that has it.

    >>> numbers("centre", 3, False), numbers("mean", 2, False)
    (tensor([0., 1., 0.], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    if isinstance(init, str):
        if init not in ("centre", "mean"):
            raise OptionError(f"init came as {init!r}.", 'Give "centre", "mean" or numbers.')
        if init == "mean":
            return torch.full((count,), 1 / count, dtype=torch.float64)
        middle = (count - 1) // 2 if same else count // 2
        return torch.nn.functional.one_hot(torch.tensor(middle), count).double()
    found = torch.as_tensor(init).detach().cpu()
    if found.shape != (count,):
        raise OptionError(
            f"init came with shape {tuple(found.shape)} for {count} taps.", "Give a number for each tap."
        )
    return found if found.is_complex() else found.double()


def grown(
    layer: FactorizedKernel, near: Axis, axis: int, taps: Tensor, own: bool
) -> tuple[Format, Layout, int | None]:
    """The kernel with the new axis, its layout, and the number of the factor that is new."""
    layout, value = layer.layout, layer.weight.value.map(Tensor.detach)
    k = next(n for n, group in enumerate(layout.modes) if near in group)
    found = with_mode(value, k, taps) if own else None
    if found is not None:
        modes = inserted(layout.modes, found.mode, (FRESH,))
        return found.value, renamed(layout, modes, axis, len(taps)), found.factor
    group = layout.modes[k]
    at = group.index(near) + (layout.weight.index((near,)) < 2 + axis)
    modes = inserted(layout.modes[:k] + layout.modes[k + 1 :], k, inserted(group, at, FRESH))
    value = enlarged(value, k, math.prod(layout.extent(group[at:])), taps)
    return value, renamed(layout, modes, axis, len(taps)), None


def renamed(layout: Layout, modes: Groups, axis: int, size: int) -> Layout:
    """The layout with the new axis, and all spatial axes named by their places: d, h, w."""
    outer, inner, *spatial = layout.weight
    spatial = list(inserted(tuple(spatial), axis, (FRESH,)))
    names = {group[0]: name for group, name in zip(spatial, SPATIAL[len(spatial)], strict=True)}

    def new(groups: Sequence[Sequence[Axis]]) -> Groups:
        return tuple(tuple(names.get(a, a) for a in group) for group in groups)

    sizes = tuple((names.get(a, a), n) for a, n in (*layout.sizes, (FRESH, size)))
    return Layout(new([outer, inner, *spatial]), new(modes), sizes)


def inserted(numbers: tuple[Any, ...], at: int, one: Any) -> tuple[Any, ...]:
    """The tuple with one entry more.

    >>> inserted((1, 2), 1, 9)
    (1, 9, 2)
    """
    return (*numbers[:at], one, *numbers[at:])


def train_only(made: FactorizedKernel, layer: FactorizedKernel, new: int | None) -> None:
    """Which parameters are trained: as in the old layer, or the factor number `new` alone."""
    if new is None:
        made.weight.requires_grad_(layer.weight.requires_grad)
        return
    made.requires_grad_(False)
    made.weight.factors()[new].requires_grad_(True)
