"""A weight that is held as factors times a tensor, factor by factor in the cheapest order."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.core.layout import rearrange
from tenfold.core.lower import lower
from tenfold.core.network import Axes, distinct
from tenfold.core.search import Application
from tenfold.nn.execute import run
from tenfold.nn.tensor.seen import Seen, seen

ROWS = 256
"""Rows to plan for, where their number is not known when the program is made."""


def linear(x: Tensor, weight: Seen, bias: Tensor | None = None) -> Tensor | None:
    """`F.linear`: (..., inputs) and a weight (outputs, inputs); None if the shapes are not such.

    >>> from tenfold.formats import LowRank
    >>> w = Seen(LowRank(torch.ones(3, 1), torch.ones(1, 4)))
    >>> linear(torch.ones(2, 4), w)[0]
    tensor([4., 4., 4.])
    """
    if len(weight.shape) != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        return None
    return mapped(x, weight, weight.groups[1], weight.groups[0], bias)


def mapped(x: Tensor, weight: Seen, inputs: Axes, outputs: Axes, bias: Tensor | None = None) -> Tensor:
    """(..., inputs) -> (..., outputs): digits of the weight that are in both are shared, number by number."""
    network = weight.network
    program = lower(Application(network, inputs, outputs, rows=_rows(x)))
    sizes = network.size_of
    factors = [
        rearrange(f, axes, s.axes, sizes, s.shape)
        for f, axes, s in zip(weight.factors(network), network.factors, program.stored, strict=True)
    ]
    return run(program, x, factors, bias)


def _rows(x: Tensor) -> int:
    """The rows of x up to the next power of two, so that few programs are made; fixed while x is traced."""
    rows = math.prod(x.shape[:-1])
    if torch.compiler.is_compiling() or not isinstance(rows, int):
        return ROWS
    return 1 << max(0, rows - 1).bit_length()


def times(weight: Seen, x: Tensor) -> Tensor | None:
    """`weight @ x`; None where the weight is a vector, or both have several axes of matrices that differ."""
    if len(weight.shape) < 2 or x.ndim < 1 or x.shape[-2:][0] != weight.shape[-1]:
        return None
    *batch, m, _ = weight.shape
    *shared, outputs, inputs = weight.groups
    many = distinct(shared)
    if x.ndim == 1:
        return mapped(x, weight, inputs, (*many, *outputs)).reshape(*batch, m)
    if not batch:
        return mapped(x.mT, weight, inputs, outputs).mT
    if x.ndim == 2:
        return mapped(x.mT, weight, inputs, (*many, *outputs)).unflatten(-1, (*batch, m)).movedim(0, -1)
    if list(x.shape[:-2]) != batch:
        return None
    columns = x.movedim(-1, 0).flatten(1)
    found = mapped(columns, weight, (*many, *inputs), (*many, *outputs))
    return found.unflatten(-1, (*batch, m)).movedim(0, -1)


def transposed(weight: Seen) -> Seen:
    """The weight with its last two axes exchanged."""
    order = list(range(len(weight.shape)))
    return weight.permuted([*order[:-2], order[-1], order[-2]])


def times_from_left(x: Tensor, weight: Seen) -> Tensor | None:
    """`x @ weight`; None as `times`."""
    if len(weight.shape) < 2 or x.ndim < 1:
        return None
    if x.ndim > 1 and len(weight.shape) > 2:
        found = times(transposed(weight), x.mT)
        return None if found is None else found.mT
    if len(weight.shape) > 2:
        return times(transposed(weight), x)
    return linear(x, transposed(weight))


def both(left: Seen, right: Seen) -> Seen | None:
    """The product of two matrices, held as the factors of both; None unless their inner digits agree.

    >>> from tenfold.formats import LowRank
    >>> w = Seen(LowRank(torch.ones(3, 1), torch.ones(1, 4)))
    >>> product = both(w, transposed(w))
    >>> product.dense()[0], product.value.numel
    (tensor([4., 4., 4.]), 14)
    """
    if len(left.shape) != 2 or len(right.shape) != 2:
        return None
    ours, theirs = left.network, right.network
    (rows, inner), (met, columns) = left.groups, right.groups
    if ours.extent(inner) != theirs.extent(met):
        return None
    mine = {a: f"l.{a}" for a in distinct(ours.factors)}
    names = {a: f"r.{a}" for a in distinct(theirs.factors)} | dict(
        zip(met, (mine[a] for a in inner), strict=True)
    )
    graph = [*_renamed(ours.factors, mine), *_renamed(theirs.factors, names)]
    groups = (tuple(mine[a] for a in rows), tuple(names[a] for a in columns))
    return seen([*left.factors(ours), *right.factors(theirs)], graph, groups)


def _renamed(factors: Sequence[Axes], names: dict[str, str]) -> list[Axes]:
    return [tuple(names[a] for a in axes) for axes in factors]


def mode_product(weight: Seen, operand: Tensor, axis: int) -> Seen:
    """The product of an axis with a matrix (new, size), or with a vector, which removes the axis."""
    network, groups = weight.network, list(weight.groups)
    digits = groups[axis]
    extra = operand.reshape(*operand.shape[:-1], *network.extent(digits))
    new: Axes = ("+",) if operand.ndim == 2 else ()
    groups[axis : axis + 1] = [new] if new else []
    arrays = [*weight.factors(network), extra]
    return seen(arrays, [*network.factors, (*new, *digits)], tuple(groups))
