"""Sums, products and inner products of weights that are held as factors."""

from torch import Tensor

from tenfold.core.errors import ShapeError
from tenfold.formats import Format
from tenfold.nn.tensor.products import mode_product
from tenfold.nn.tensor.seen import Seen, seen


def added(a: Seen, b: Seen) -> Seen | None:
    """The sum of two weights of one format in one layout, whose ranks add up; None of others."""
    if not (a.matches(b) and _alike(a.value, b.value)):
        return None
    return Seen(a.value + b.value, a.layout)


def _alike(a: Format, b: Format) -> bool:
    return type(a) is type(b) and a.static == b.static


def multiplied(a: Seen, b: Seen) -> Seen | None:
    """The entrywise product, whose ranks multiply; None unless the digits of both agree.

    Two of one format in one layout keep both, otherwise it is the general network of all factors.
    """
    if a.matches(b):
        return Seen(a.value * b.value, a.layout)
    if not digits_agree(a, b):
        return None
    left, right = a.apart(), b.apart()
    return Seen(left.value * right.value, left.layout)


def digits_agree(a: Seen, b: Seen) -> bool:
    """Whether the axes of both are made of digits of the same sizes."""
    ours, theirs = (tuple(x.network.extent(g) for g in x.groups) for x in (a, b))
    return ours == theirs


def inner(a: Seen, b: Seen | Tensor) -> Tensor:
    """The inner product, conjugating the first; nothing is made dense where the digits of both agree.

    Raises:
        ShapeError: for two shapes.
    """
    if tuple(a.shape) != tuple(b.shape):
        raise ShapeError(f"inner product of shapes {tuple(a.shape)} and {tuple(b.shape)}.", "Give one shape.")
    if isinstance(b, Seen) and a.matches(b):
        found: Tensor = a.value.inner(b.value)
        return found
    left = a.apart()
    if isinstance(b, Seen) and digits_agree(a, b):
        right = b.apart()
    else:
        right = _as_digits(b.dense() if isinstance(b, Seen) else b, left)
    found = left.value.inner(right.value)
    return found


def _as_digits(tensor: Tensor, like: Seen) -> Seen:
    """A plain tensor as a network of one factor, with the digits of another."""
    sizes = like.network.size_of
    split = tensor.reshape([sizes[a] for g in like.groups for a in g])
    return seen([split], [tuple(a for g in like.groups for a in g)], like.groups)


def mode_dot(x: Seen, operand: Tensor, axis: int) -> Seen:
    """Product of an axis with a matrix (new, size) or a vector; the format stays where the axis is a mode.

    Raises:
        ShapeError: if the operand does not fit.
    """
    n = x.shape[axis]
    if operand.ndim not in (1, 2) or operand.shape[-1] != n:
        raise ShapeError(
            f"axis {axis} has size {n}, but the operand has shape {tuple(operand.shape)}.",
            "Give a vector or a matrix whose last axis is as long.",
        )
    axis %= len(x.shape)
    k = x.mode_of(axis)
    if k is None or (x.layout is not None and operand.ndim == 1):
        return mode_product(x, operand, axis)
    return x.resized(x.value.mode_dot(operand, k))
