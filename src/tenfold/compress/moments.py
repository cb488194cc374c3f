"""Second moments over the axes of a weight, and what they are on the modes of a layout.

G over the outputs of a weight and P over its inputs and taps weigh a change of it by G ⊗ P. A layout groups
these axes into modes. The moment of a mode is the part of G ⊗ P on its axes: exact where G and P lie each
within one mode, the product of partial traces where P is spread over several. A moment that is a vector is
the diagonal of one, and stays so: that of a vocabulary has one entry for each of its rows.
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

    `inputs` is over (i, *taps) or over i alone; None means that all directions count the same. Vectors are
    diagonals. For the groups of a convolution, `inputs` may be a stack of matrices: see `on_sides`.
    """

    outputs: Tensor | None
    inputs: Tensor | None


def output_axes(layout: Layout) -> Axes:
    """The group of the weight that holds its outputs; with that of convolution groups, if it stands there.

    >>> output_axes(Layout.parse("(g=4 i) o h w -> (g i) o (h w)"))
    ('o',)
    """
    return next(g for g in layout.weight if any(role(a) is Role.OUT for a in g))


def input_axes(layout: Layout) -> Axes:
    """The group of the weight that holds its inputs, or the rows of a table.

    >>> input_axes(Layout.parse("(g=4 i) o h w -> (g i) o (h w)")), input_axes(Layout.parse("v o -> v o"))
    (('g', 'i'), ('v',))
    """
    return next(g for g in layout.weight if any(role(a) in (Role.IN, Role.INDEX) for a in g))


def tap_axes(layout: Layout) -> Axes:
    """The axes of the kernel; of a bilinear weight those of the second input, which are as taps to the first.

    >>> tap_axes(Layout.parse("i o h w -> i (h o) w")), tap_axes(Layout.parse("o i0 i1 -> o i0 i1"))
    (('h', 'w'), ('i1',))
    """
    sides = output_axes(layout), input_axes(layout)
    return tuple(a for g in layout.weight if g not in sides for a in g)


def outputs_first(weight: Tensor, layout: Layout) -> Tensor:
    """A weight, or its change, as (outputs, inputs, *taps): tables and transposed convolutions are turned."""
    return weight if layout.weight[0] == output_axes(layout) else weight.transpose(0, 1)


def on_sides(moments: Moments, layout: Layout) -> Moments:
    """The moments over the axes of the two sides of the weight.

    The groups of a convolution are those of its outputs, whose inputs have the mean of the groups' moments:
    they share their factors. Those of a transposed convolution are of its inputs, whose moment is block
    diagonal; the outputs have the mean of the groups' moments.
    """
    outputs, inputs = moments.outputs, moments.inputs
    groups = product(tuple(a for a in input_axes(layout) if role(a) is Role.GROUP), dict(layout.sizes))
    if inputs is not None and inputs.ndim == 3:
        inputs = inputs.mean(0) if groups == 1 else torch.block_diag(*inputs)
    if outputs is not None and groups > 1 and len(outputs) % groups == 0:
        outputs = _mean_over(groups, outputs)
    return Moments(outputs, inputs)


def _mean_over(groups: int, moment: Tensor) -> Tensor:
    """The mean of the diagonal blocks."""
    if moment.ndim == 1:
        return moment.unflatten(0, (groups, -1)).mean(0)
    n = len(moment) // groups
    return moment.reshape(groups, n, groups, n).diagonal(dim1=0, dim2=2).mean(-1)


def check_fit(moments: Moments, layout: Layout, name: str) -> None:
    """Raise ShapeError if the moments, of both sides, are over other axes than those of the weight."""
    sizes = dict(layout.sizes)
    outputs, inputs = (product(g, sizes) for g in (output_axes(layout), input_axes(layout)))
    patch = inputs * product(tap_axes(layout), sizes)
    found = [None if m is None else m.shape[0] for m in (moments.outputs, moments.inputs)]
    if found[0] not in (None, outputs) or found[1] not in (None, inputs, patch):
        raise ShapeError(
            f"statistics of '{name}' are over {found[0]} outputs and {found[1]} inputs, but its weight has "
            f"{outputs} outputs, {inputs} inputs and {patch // inputs} taps.",
            "Collect them of this model.",
        )


def firsts(layout: Layout) -> list[tuple[bool, Axes]]:
    """The modes, each with whether it is the first that holds input axes; those of slices do not count."""
    seen, others = False, {*slice_axes(layout), *output_axes(layout)}
    found = []
    for group in layout.modes:
        holds = any(a not in others for a in group)
        found.append((holds and not seen, group))
        seen = seen or holds
    return found


def moment_of_mode(group: Axes, layout: Layout, moments: Moments, first: bool) -> Tensor | None:
    """The moment on the axes of one mode, in their order; None if it is the identity."""
    outputs = tuple(a for a in group if a in output_axes(layout))
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
    both = kron(left, right)
    return in_order(both, (*outputs, *inputs), group, sizes)


def output_part(axes: Axes, layout: Layout, moment: Tensor | None) -> Tensor | None:
    """The output moment if the mode holds all output axes, otherwise None."""
    if moment is None or not axes or set(axes) != set(output_axes(layout)):
        return None
    return in_order(moment, output_axes(layout), axes, dict(layout.sizes))


def input_part(axes: Axes, layout: Layout, moment: Tensor | None, first: bool) -> Tensor | None:
    """The input moment traced over the axes that the mode does not hold.

    The first mode with input axes carries the scale, or one with all that the moment knows; the others are
    divided by the trace, so that the product of all of them has the trace of the whole. Axes that the moment
    does not know count all the same. A mode with only a part of the channels, which its layout splits, has
    no moment; but if the others number slices, it has the mean of theirs. A part of a vocabulary has one: how
    often the data ask for each of its digits.
    """
    if moment is None:
        return None
    slices, sizes = slice_axes(layout), dict(layout.sizes)
    channels = tuple(a for a in input_axes(layout) if a not in slices)
    known = known_axes(layout, moment)
    kept = tuple(a for a in axes if a in known and a not in slices)
    spread = tuple(a for a in axes if a not in known)
    split = 0 < len(set(channels) & set(kept)) < len(channels) and role(channels[0]) is not Role.INDEX
    if not kept or split:
        return None
    part = traced(moment, known, kept, sizes)
    if not first and len(kept) < len(set(known) - set(slices)):
        part = part / trace(part).clamp_min(torch.finfo(part.dtype).tiny)
    if channels[0] in kept:
        part = part / product(slices, sizes)
    if spread:
        part = kron(part, _identity(spread, sizes, part))
    return in_order(part, (*kept, *spread), axes, sizes)


def slice_axes(layout: Layout) -> Axes:
    """The input axes that number slices: all channels but the last, if they have modes of their own.

    >>> slice_axes(Layout.parse("o (i0 i1) h w -> (o w) i0 (i1 h)"))
    ('i0',)
    """
    outer = tuple(a for a in input_axes(layout)[:-1] if role(a) is not Role.INDEX)
    modes = [group for group in layout.modes if set(group) & set(outer)]
    return outer if all(set(group) <= set(outer) for group in modes) else ()


def known_axes(layout: Layout, moment: Tensor) -> Axes:
    """The axes that a moment is over: inputs and taps, or the inputs alone."""
    whole = (*input_axes(layout), *tap_axes(layout))
    return whole if moment.shape[0] == product(whole, dict(layout.sizes)) else input_axes(layout)


def traced(moment: Tensor, whole: Axes, kept: Axes, sizes: dict[Axis, int]) -> Tensor:
    """The partial trace of a moment over the axes that are not kept; the kept ones in the given order.

    >>> traced(torch.tensor([1.0, 2.0, 3.0, 4.0]), ("v0", "v1"), ("v0",), {"v0": 2, "v1": 2})
    tensor([3., 7.])
    """
    extent = [sizes[a] for a in whole]
    spread = moment.reshape(extent * moment.ndim)
    for k in reversed([k for k, a in enumerate(whole) if a not in kept]):
        pair = spread if moment.ndim == 1 else spread.diagonal(dim1=k, dim2=k + spread.ndim // 2)
        spread = pair.sum(k if moment.ndim == 1 else -1)
    left = [a for a in whole if a in kept]
    order = [left.index(a) for a in kept]
    axes = [k + n * len(left) for n in range(moment.ndim) for k in order]
    return spread.permute(axes).reshape([product(kept, sizes)] * moment.ndim)


def trace(moment: Tensor) -> Tensor:
    """Of a matrix, or of a diagonal one."""
    return moment.sum() if moment.ndim == 1 else moment.diagonal().sum()


def kron(a: Tensor, b: Tensor) -> Tensor:
    """The Kronecker product of two moments; diagonal if both are.

    >>> kron(torch.ones(2), torch.tensor([3.0, 4.0]))
    tensor([3., 4., 3., 4.])
    """
    if a.ndim != b.ndim:
        a, b = (torch.diag(m) if m.ndim == 1 else m for m in (a, b))
    return torch.kron(a, b)


def product(axes: Axes, sizes: dict[Axis, int]) -> int:
    """Product of the sizes of `axes`."""
    return math.prod(sizes[a] for a in axes)


def in_order(matrix: Tensor, axes: Axes, wanted: Axes, sizes: dict[Axis, int]) -> Tensor:
    """A matrix over `axes` with rows and columns in the order `wanted`."""
    if axes == wanted:
        return matrix
    return traced(matrix, axes, wanted, sizes)


def _identity(axes: Axes, sizes: dict[Axis, int], like: Tensor) -> Tensor:
    return torch.ones(product(axes, sizes), dtype=like.dtype, device=like.device)
