"""Second moments over the axes of a weight, and what they are on the modes of a layout.

G over the outputs of a weight and P over its inputs and taps weigh a change of it by G ⊗ P. A layout groups
these axes into modes. The moment of a mode is the part of G ⊗ P on its axes: exact where G and P lie each
within one mode, the product of partial traces where P is spread over several.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.core.errors import ShapeError
from tenfold.core.layout import Layout
from tenfold.core.network import Axes, Axis
from tenfold.nn.base import Role, role


@dataclass(frozen=True)
class Moments:
    """What a metric knows of a weight: a matrix over its output axes, and one over its input axes and taps.

    `inputs` is over (i, *taps) or over i alone; None means that all directions count the same.
    """

    outputs: Tensor | None
    inputs: Tensor | None


def check_fit(moments: Moments, layout: Layout, name: str) -> None:
    """Raise ShapeError if the moments are over other axes than those of the weight."""
    sizes = dict(layout.sizes)
    outputs, inputs = (product(g, sizes) for g in layout.weight[:2])
    patch = inputs * math.prod(product(g, sizes) for g in layout.weight[2:])
    found = [None if m is None else m.shape[0] for m in (moments.outputs, moments.inputs)]
    if found[0] not in (None, outputs) or found[1] not in (None, inputs, patch):
        raise ShapeError(
            f"statistics of '{name}' are over {found[0]} outputs and {found[1]} inputs, but its weight has "
            f"{outputs} outputs, {inputs} inputs and {patch // inputs} taps.",
            "Collect them of this model.",
        )


def firsts(layout: Layout) -> list[tuple[bool, Axes]]:
    """The modes, each with whether it is the first that holds input axes; those of slices do not count."""
    seen, slices = False, slice_axes(layout)
    found = []
    for group in layout.modes:
        holds = any(role(a) in (Role.IN, Role.SPATIAL) and a not in slices for a in group)
        found.append((holds and not seen, group))
        seen = seen or holds
    return found


def moment_of_mode(group: Axes, layout: Layout, moments: Moments, first: bool) -> Tensor | None:
    """The moment on the axes of one mode, in their order; None if it is the identity."""
    outputs = tuple(a for a in group if role(a) in (Role.OUT, Role.GROUP))
    inputs = tuple(a for a in group if a not in outputs)
    left = output_part(outputs, layout, moments.outputs)
    right = input_part(inputs, layout, moments.inputs, first)
    if left is None and right is None:
        return None
    sizes = dict(layout.sizes)
    like = left if left is not None else right
    assert like is not None
    left = _identity(outputs, sizes, like) if left is None else left
    right = _identity(inputs, sizes, like) if right is None else right
    both = torch.kron(left, right)
    return in_order(both, (*outputs, *inputs), group, sizes)


def output_part(axes: Axes, layout: Layout, moment: Tensor | None) -> Tensor | None:
    """The output moment if the mode holds all output axes, otherwise None."""
    if moment is None or not axes or set(axes) != set(layout.weight[0]):
        return None
    return in_order(moment, layout.weight[0], axes, dict(layout.sizes))


def input_part(axes: Axes, layout: Layout, moment: Tensor | None, first: bool) -> Tensor | None:
    """The input moment traced over the axes that the mode does not hold.

    The first mode with input axes carries the scale, or one with all that the moment knows; the others are
    divided by the trace, so that the product of all of them has the trace of the whole. Axes that the moment
    does not know count all the same. A mode with only a part of the channels, which its layout splits, has
    no moment; but if the others number slices, it has the mean of theirs.
    """
    if moment is None:
        return None
    slices, sizes = slice_axes(layout), dict(layout.sizes)
    channels = tuple(a for a in layout.weight[1] if a not in slices)
    known = known_axes(layout, moment)
    kept = tuple(a for a in axes if a in known and a not in slices)
    spread = tuple(a for a in axes if a not in known)
    if not kept or 0 < len(set(channels) & set(kept)) < len(channels):
        return None
    part = traced(moment, known, kept, sizes)
    if not first and len(kept) < len(set(known) - set(slices)):
        part = part / part.diagonal().sum().clamp_min(torch.finfo(part.dtype).tiny)
    if channels[0] in kept:
        part = part / product(slices, sizes)
    if spread:
        part = torch.kron(part, _identity(spread, sizes, part))
    return in_order(part, (*kept, *spread), axes, sizes)


def slice_axes(layout: Layout) -> Axes:
    """The input axes that number slices: all but the last, if they have modes of their own.

    >>> slice_axes(Layout.parse("o (i0 i1) h w -> (o w) i0 (i1 h)"))
    ('i0',)
    """
    outer = layout.weight[1][:-1]
    modes = [group for group in layout.modes if set(group) & set(outer)]
    return outer if all(set(group) <= set(outer) for group in modes) else ()


def known_axes(layout: Layout, moment: Tensor) -> Axes:
    """The axes that a moment is over: inputs and taps, or the inputs alone."""
    whole = tuple(a for g in layout.weight[1:] for a in g)
    return whole if moment.shape[0] == product(whole, dict(layout.sizes)) else layout.weight[1]


def traced(moment: Tensor, whole: Axes, kept: Axes, sizes: dict[Axis, int]) -> Tensor:
    """The partial trace of a matrix over the axes that are not kept; the kept ones in the given order."""
    extent = [sizes[a] for a in whole]
    spread = moment.reshape(*extent, *extent)
    for k in reversed([k for k, a in enumerate(whole) if a not in kept]):
        spread = spread.diagonal(dim1=k, dim2=k + spread.ndim // 2).sum(-1)
    left = [a for a in whole if a in kept]
    order = [left.index(a) for a in kept]
    size = product(kept, sizes)
    return spread.permute(*order, *(len(left) + k for k in order)).reshape(size, size)


def product(axes: Axes, sizes: dict[Axis, int]) -> int:
    """Product of the sizes of `axes`."""
    return math.prod(sizes[a] for a in axes)


def in_order(matrix: Tensor, axes: Axes, wanted: Axes, sizes: dict[Axis, int]) -> Tensor:
    """A matrix over `axes` with rows and columns in the order `wanted`."""
    if axes == wanted:
        return matrix
    return traced(matrix, axes, wanted, sizes)


def _identity(axes: Axes, sizes: dict[Axis, int], like: Tensor) -> Tensor:
    return torch.eye(product(axes, sizes), dtype=like.dtype, device=like.device)
