"""Run a program in PyTorch: convolutions, linear maps and batched products with plain-int arguments."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.core.program import (
    Bag,
    Batched,
    Conv,
    Gather,
    Linear,
    Merge,
    Program,
    Shuffle,
    Transposed,
    View,
)
from tenfold.nn.embedding.bags import Bags
from tenfold.nn.memory import repeated

WHOLE = ((1, 0, 1),)
"""The digits of a row whose number is the index."""
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def run(
    program: Program,
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None = None,
    output_padding: Sequence[int] | None = None,
) -> Tensor:
    """The layer's output: channels are axis 1 of a convolution's input and the last axis of a linear one's.

    `weights` are the factors as `program.stored` describes them. `output_padding`, one number for each
    spatial axis, takes the place of the program's own in transposed convolutions. The loop is over static
    data, so a tracer sees straight-line tensor code.
    """
    buffers = list(weights)
    for k, step in enumerate(program.steps):
        last = bias if program.bias_last and k == len(program.steps) - 1 else None
        if isinstance(step, Merge):
            buffers.append(merge(step, buffers[step.left], buffers[step.right]))
        elif isinstance(step, Conv):
            x = convolve(step, x, view(buffers[step.weight], step.view), last)
        elif isinstance(step, Transposed):
            x = spread(step, x, view(buffers[step.weight], step.view), last, output_padding)
        elif isinstance(step, Linear):
            x = multiply(step, x, view(buffers[step.weight], step.view), last)
        elif isinstance(step, Batched):
            x = multiply_groups(step, x, view(buffers[step.weight], step.view))
        elif isinstance(step, Shuffle):
            x = shuffle(step, x, 1 if program.dimensions else x.ndim - 1)
    if bias is None or program.bias_last:
        return x
    return x + bias.to(x.dtype).view(-1, *(1,) * program.dimensions)  # autocast may have lowered x


def join(program: Program, first: Tensor, second: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """What a bilinear layer makes of two inputs (batch, ...), before its bias: (batch, outputs)."""
    buffers = [*weights, first, second]
    for step in program.steps:
        if isinstance(step, Merge):
            buffers.append(merge(step, buffers[step.left], buffers[step.right]))
        else:
            buffers.append(view(buffers[-1], View(step.perm, step.shape)))  # type: ignore[union-attr]
    return buffers[-1]


def look_up(
    program: Program,
    indices: Tensor,
    weights: Sequence[Tensor],
    zeroed: Tensor | None = None,
    bags: Bags | None = None,
    sparse: bool = False,
) -> Tensor:
    """The rows of a table that the `indices` (n,) ask for: (n, outputs), or (bags, outputs).

    `weights` are the factors as `program.stored` describes them. Where `zeroed` is true the row is zero, and
    gets no gradient. With `sparse`, gradients of the factors that rows are taken from are sparse.
    """
    buffers = list(weights)
    for step in program.steps:
        if isinstance(step, Merge):
            found = merge(step, buffers[step.left], buffers[step.right])
        elif isinstance(step, Gather):
            table = view(buffers[step.weight], step.view)
            found = gather(step, indices, table, zeroed if step.zeroes else None, bags, sparse)
        elif isinstance(step, Bag):
            found = shaped(add_up(view(buffers[step.weight], step.view), bags), step.shape)
        else:
            found = view(buffers[-1], View(step.perm, step.shape))  # type: ignore[union-attr]
        buffers.append(found)
    return buffers[-1]


def gather(
    step: Gather, indices: Tensor, table: Tensor, zeroed: Tensor | None, bags: Bags | None, sparse: bool
) -> Tensor:
    """Rows of (rows, rest), for every index or added up by bag.

    Selecting rows is several times faster backward than torch's embedding; forward alone, bags of rows need
    not be written.
    """
    rows = row_numbers(step, indices)
    if step.bagged and (sparse or not torch.is_grad_enabled()):
        assert bags is not None
        return shaped(bags.of_table(rows, table, zeroed, sparse), step.shape)
    found = F.embedding(rows, table, sparse=True) if sparse else table.index_select(0, rows)
    if zeroed is not None:
        found = found.masked_fill(zeroed.unsqueeze(-1), 0)
    return shaped(add_up(found, bags) if step.bagged else found, step.shape)


def row_numbers(step: Gather, indices: Tensor) -> Tensor:
    """Which row each index asks for; digits are taken with floors, so that a wrong index stays wrong."""
    if step.digits == WHOLE:
        return indices
    parts = []
    for divisor, modulus, factor in step.digits:
        digit = indices if divisor == 1 else indices // divisor
        digit = digit % modulus if modulus else digit
        parts.append(digit if factor == 1 else digit * factor)
    return sum(parts[1:], start=parts[0])


def add_up(rows: Tensor, bags: Bags | None) -> Tensor:
    """The weighted sum of the rows of each bag."""
    assert bags is not None
    return bags.sums(rows)


def view(weight: Tensor, how: View) -> Tensor:
    """`weight` in the order and shape of its step."""
    if how.perm:
        weight = weight.permute(how.perm)
    return weight.reshape(how.shape) if how.shape else weight


def shaped(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Rows with their rest in several axes, if the next step wants them apart."""
    return rows.reshape(shape) if shape else rows


def merge(step: Merge, left: Tensor, right: Tensor) -> Tensor:
    """Factor meets factor."""
    left, right = view(left, step.left_view), view(right, step.right_view)
    if step.left_sum:
        left = left.sum(-1)
    if step.right_sum:
        right = right.sum(-1)
    product = left * right if step.outer else left @ right
    alike = product.ndim > 1 and product.shape[1:] == step.shape[1:]
    return product if alike else product.reshape(step.shape)


def shuffle(step: Shuffle, x: Tensor, dim: int) -> Tensor:
    """The channel axes, which lie folded in axis `dim`, in another order."""
    n = len(step.perm)
    order = (*range(dim), *(dim + p for p in step.perm), *range(dim + n, x.ndim + n - 1))
    return x.unflatten(dim, step.shape).permute(order).flatten(dim, dim + n - 1)


def multiply(step: Linear, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., pre gone post) -> (..., pre new post).

    torch's product of a matrix with a stack on its right copies the stack, and the result, to turn their
    axes. A stack of that same matrix spares this; but it has a gradient, which is a stack as well, and so it
    is taken only where that has at most twice as many elements as the others together.
    """
    if step.pre == 1 and step.post == 1:
        return F.linear(x, weight, bias)
    if step.post == 1:
        return F.linear(x.unflatten(-1, (step.pre, step.gone)), weight).flatten(-2)
    new, gone = weight.shape
    if new * gone > 2 * (new + gone) * step.post:
        return (weight @ x.unflatten(-1, (step.pre, step.gone, step.post))).flatten(-3)
    stack = x.reshape(-1, step.gone, step.post)
    product = torch.bmm(weight.expand(stack.shape[0], new, gone), stack)
    return product.reshape(*x.shape[:-1], step.pre * new * step.post)


def multiply_groups(step: Batched, x: Tensor, weight: Tensor) -> Tensor:
    """(..., spectators kept gone) -> (..., spectators kept new)."""
    lead = x.shape[:-1]
    if step.gone == 1:
        return (x.unflatten(-1, (step.spectators, step.kept, 1)) * weight.squeeze(1)).flatten(-3)
    grouped = x.reshape(-1, step.kept, step.gone).transpose(0, 1)
    return (grouped @ weight).transpose(0, 1).reshape(*lead, step.spectators * step.kept * step.new)


def convolve(step: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(batch, spectators kept gone, *positions) -> (batch, spectators kept new, *positions)."""
    if step.spectators > 1:
        weight = repeated(weight, step.spectators)
    if step.pad:
        x = F.pad(x, step.pad, step.pad_mode)
    convolution = CONVOLUTIONS[len(step.stride)]
    return convolution(x, weight, bias, step.stride, step.padding, step.dilation, step.groups)


def spread(
    step: Transposed, x: Tensor, weight: Tensor, bias: Tensor | None, output_padding: Sequence[int] | None
) -> Tensor:
    """As `convolve`, transposed: the axes of the step grow, each by its own stride and taps."""
    if step.spectators > 1:
        weight = repeated(weight, step.spectators)
    ends = step.output_padding
    if output_padding is not None:
        ends = tuple(n if k in step.axes else 0 for k, n in enumerate(output_padding))
    convolution = TRANSPOSED[len(step.stride)]
    return convolution(x, weight, bias, step.stride, step.padding, ends, step.groups, step.dilation)
