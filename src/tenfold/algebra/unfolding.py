"""Tensors as matrices and vectors, and back.

The convention is that of row-major (C) order, as in TensorLy: the row of an unfolding is its mode, and
among its columns the last of the other modes varies fastest. Kolda & Bader 2009 let the first vary fastest:
their unfoldings are these with the columns permuted, and their Khatri-Rao products stand in reverse order.
"""

from collections.abc import Sequence
from math import prod

from jaxtyping import Num

from tenfold.core.arrays import Array, namespace
from tenfold.core.errors import ShapeError


def unfold(tensor: Num[Array, "*shape"], mode: int) -> Num[Array, "i rest"]:
    """The matrix whose rows are the slices of `tensor` along `mode`; a view for mode 0, else a copy.

    A negative mode counts from the end.

    Raises:
        ShapeError: if the tensor has no such mode.

    Source: Kolda & Bader 2009, section 2.4, with the columns in C order.

    >>> import numpy as np
    >>> unfold(np.arange(8).reshape(2, 2, 2), 1)
    array([[0, 1, 4, 5],
           [2, 3, 6, 7]])
    """
    mode = check_mode(tensor.ndim, mode)
    xp = namespace(tensor)
    rest = prod(n for k, n in enumerate(tensor.shape) if k != mode)
    return xp.reshape(xp.moveaxis(tensor, mode, 0), (tensor.shape[mode], rest))


def fold(matrix: Num[Array, "i rest"], mode: int, shape: Sequence[int]) -> Num[Array, "*shape"]:
    """The tensor of the given shape whose unfolding along `mode` is `matrix`.

    Raises:
        ShapeError: if the matrix has another shape than that unfolding.

    >>> import numpy as np
    >>> tensor = np.arange(8).reshape(2, 2, 2)
    >>> bool((fold(unfold(tensor, 1), 1, (2, 2, 2)) == tensor).all())
    True
    """
    mode, xp = check_mode(len(shape), mode), namespace(matrix)
    rest = [*shape[:mode], *shape[mode + 1 :]]
    if tuple(matrix.shape) != (shape[mode], prod(rest)):
        raise ShapeError(
            f"a tensor of shape {tuple(shape)} unfolds along mode {mode} to {(shape[mode], prod(rest))}, "
            f"but the matrix has shape {tuple(matrix.shape)}.",
            "Give the shape of the whole tensor, with the size of the mode in its place.",
        )
    return xp.moveaxis(xp.reshape(matrix, (shape[mode], *rest)), 0, mode)


def vec(tensor: Num[Array, "*shape"]) -> Num[Array, " size"]:
    """The entries of `tensor` as a vector, the last mode varying fastest.

    >>> import numpy as np
    >>> vec(np.array([[1, 2], [3, 4]]))
    array([1, 2, 3, 4])
    """
    return namespace(tensor).reshape(tensor, (-1,))


def unvec(vector: Num[Array, " size"], shape: Sequence[int]) -> Num[Array, "*shape"]:
    """The tensor of the given shape whose `vec` is `vector`.

    Raises:
        ShapeError: if the vector has another length.

    >>> import numpy as np
    >>> unvec(np.array([1, 2, 3, 4]), (2, 2))
    array([[1, 2],
           [3, 4]])
    """
    if tuple(vector.shape) != (prod(shape),):
        raise ShapeError(
            f"a tensor of shape {tuple(shape)} has {prod(shape)} entries, but the vector has shape "
            f"{tuple(vector.shape)}.",
            "Choose sizes whose product is the length of the vector.",
        )
    return namespace(vector).reshape(vector, tuple(shape))


def check_mode(order: int, mode: int) -> int:
    """The mode counted from 0, for a tensor of the given order.

    >>> check_mode(3, -1)
    2
    >>> check_mode(3, 3)
    Traceback (most recent call last):
    tenfold.core.errors.ShapeError: a tensor of order 3 has no mode 3.
    Choose a mode from 0 to 2, or from -3 to -1 to count from the end.
    """
    if not -order <= mode < order:
        raise ShapeError(
            f"a tensor of order {order} has no mode {mode}.",
            f"Choose a mode from 0 to {order - 1}, or from -{order} to -1 to count from the end.",
        )
    return mode % order
