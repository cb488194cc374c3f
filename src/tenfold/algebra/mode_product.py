"""The mode-n product: a matrix or vector applied to one mode of a tensor, or to many."""

from collections.abc import Sequence
from math import prod

from jaxtyping import Num

from tenfold.algebra.unfolding import check_mode
from tenfold.core import arrays
from tenfold.core.arrays import Array, is_chunked, namespace
from tenfold.core.errors import ShapeError

BATCHED_FROM = 16  # columns from which a batch of products beats the copy that makes it a single one


def mode_dot(
    tensor: Num[Array, "*shape"], operand: Num[Array, "j i"] | Num[Array, " i"], mode: int
) -> Num[Array, "..."]:
    """tensor ×ₙ operand: a (j, i) matrix makes a mode of size j of one of size i, a vector removes it.

    Complex operands are not conjugated. A negative mode counts from the end. Copies nothing for the first
    and last mode of a contiguous tensor.

    Raises:
        ShapeError: if the tensor has no such mode, or the operand does not fit it.

    Source: Kolda & Bader 2009, section 2.5.

    >>> import numpy as np
    >>> mode_dot(np.arange(6.0).reshape(2, 3), np.array([[1.0, 1.0, 1.0]]), 1)
    array([[ 3.],
           [12.]])
    >>> mode_dot(np.arange(6.0).reshape(2, 3), np.array([0.0, 1.0]), 0)
    array([3., 4., 5.])
    """
    mode = check_mode(tensor.ndim, mode)
    _check_operand(tensor, operand, mode)
    product = _matrix_dot(tensor, _as_matrix(operand), mode)
    return product if operand.ndim == 2 else _without_modes(product, {mode})


def multi_mode_dot(
    tensor: Num[Array, "*shape"],
    operands: Sequence[Num[Array, "..."] | None],
    modes: Sequence[int] | None = None,
    *,
    adjoint: bool = False,
) -> Num[Array, "..."]:
    """tensor ×₁ operands[0] ×₂ operands[1] …, in the order that takes the fewest multiplications.

    The modes count in the tensor as it is given, also if vectors remove some of them; by default they are
    0, 1, …. An operand None leaves its mode as it is. With `adjoint`, each operand is replaced by its
    conjugate transpose (a vector by its conjugate): with the factors of Tucker, this gives the core.

    Raises:
        ShapeError: if an operand does not fit its mode, or a mode stands twice.

    >>> import numpy as np
    >>> multi_mode_dot(np.ones((2, 3, 4)), [np.ones((5, 2)), None, np.ones(4)]).shape
    (5, 3)
    """
    modes = range(len(operands)) if modes is None else modes
    numbered = [check_mode(tensor.ndim, mode) for mode in modes]
    if len(operands) != len(numbered) or len(set(numbered)) != len(numbered):
        raise ShapeError(
            f"expected a different mode for each of {len(operands)} operands, but got {list(modes)}.",
            "Give as many modes as operands, each one once.",
        )
    given = {
        mode: _adjoint(operand) if adjoint else operand
        for mode, operand in zip(numbered, operands, strict=True)
        if operand is not None
    }
    for mode in sorted(given, key=lambda mode: _priority(tensor, given[mode], mode)):
        _check_operand(tensor, given[mode], mode)
        tensor = _matrix_dot(tensor, _as_matrix(given[mode]), mode)
    return _without_modes(tensor, {mode for mode, operand in given.items() if operand.ndim == 1})


def _priority(tensor: Num[Array, "*shape"], operand: Num[Array, "..."], mode: int) -> float:
    """1/i - 1/j: that ascending order is optimal follows from exchanging neighbours.

    Of two products i₁ → j₁ and i₂ → j₂ on a tensor of size s, the first one first costs s j₁ + s j₁ j₂ / i₁.
    """
    return 1 / max(1, tensor.shape[mode]) - 1 / max(1, _as_matrix(operand).shape[0])


def _matrix_dot(tensor: Num[Array, "*shape"], matrix: Num[Array, "j i"], mode: int) -> Num[Array, "..."]:
    """The product as one matrix product, or as a batch of them over the modes before.

    Dask's chunks would not survive the reshaping.
    """
    xp, shape = namespace(tensor, matrix), tuple(tensor.shape)
    before, after = prod(shape[:mode]), prod(shape[mode + 1 :])
    if is_chunked(tensor):
        return xp.moveaxis(xp.tensordot(tensor, matrix, axes=((mode,), (1,))), -1, mode)
    if after == 1:
        product = xp.reshape(tensor, (before, shape[mode])) @ matrix.T
    elif before == 1 or after >= BATCHED_FROM:
        product = matrix @ xp.reshape(tensor, (*((before,) if before > 1 else ()), shape[mode], after))
    else:
        return xp.moveaxis(xp.tensordot(tensor, matrix, axes=((mode,), (1,))), -1, mode)
    return xp.reshape(product, (*shape[:mode], matrix.shape[0], *shape[mode + 1 :]))


def _adjoint(operand: Num[Array, "..."]) -> Num[Array, "..."]:
    if operand.ndim == 2:
        return arrays.adjoint(operand)
    return arrays.conjugate(operand)


def _as_matrix(operand: Num[Array, "..."]) -> Num[Array, "j i"]:
    return operand if operand.ndim == 2 else operand[None, :]


def _without_modes(tensor: Num[Array, "*shape"], modes: set[int]) -> Num[Array, "..."]:
    kept = tuple(size for mode, size in enumerate(tensor.shape) if mode not in modes)
    return namespace(tensor).reshape(tensor, kept) if modes else tensor


def _check_operand(tensor: Num[Array, "*shape"], operand: Num[Array, "..."], mode: int) -> None:
    if operand.ndim not in (1, 2) or operand.shape[-1] != tensor.shape[mode]:
        size = tensor.shape[mode]
        raise ShapeError(
            f"mode {mode} of the tensor has size {size}, but its operand has shape {tuple(operand.shape)}.",
            f"Give a matrix of shape (j, {size}) or a vector of length {size}.",
        )
