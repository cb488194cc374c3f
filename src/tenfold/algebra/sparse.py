"""Products of sparse tensors with matrices: time and memory go with the entries that are listed.

All are sums over the entries of one index of a mode, of what the other indices of each entry select from the
matrices. The entries are sorted once for each tensor and mode, see `tenfold.core.segments`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from jaxtyping import Int, Num

from tenfold.algebra.mttkrp import check_factors
from tenfold.algebra.unfolding import check_mode
from tenfold.core.arrays import Array, adjoint, conjugate, device_of, namespace
from tenfold.core.errors import ShapeError
from tenfold.core.segments import Pair, Segments
from tenfold.core.sparse import Sparse


def sparse_mttkrp(tensor: Sparse, factors: Sequence[Num[Array, "_ r"]], mode: int) -> Num[Array, "i r"]:
    """`mttkrp` of a sparse tensor: O(order · entries · r) operations, and hardly any memory.

    Factors are not conjugated; that of the mode itself is not read.

    Raises:
        ShapeError: if the tensor has no such mode, or a factor does not fit.

    Source: Bader & Kolda, SIAM J. Sci. Comput. 30(1), 2007, section 3.

    >>> import numpy as np
    >>> x = Sparse(np.array([[0, 1, 1], [1, 2, 3]]), np.array([5.0, 7.0]), (2, 3, 4))
    >>> sparse_mttkrp(x, [np.ones((2, 1)), np.ones((3, 1)), np.arange(4.0)[:, None]], 0)
    array([[ 5.],
           [21.]])
    """
    mode = check_mode(tensor.ndim, mode)
    check_factors(tensor, factors)
    others = [k for k in range(tensor.ndim) if k != mode]
    rank = factors[mode].shape[1]

    def rows(at: Int[Array, " k"]) -> Pair:
        left = _rows(tensor.values, at)[:, None]
        chosen = [_rows(factors[k], _rows(tensor.columns[k], at)) for k in others]
        return left, prod(chosen[1:], start=chosen[0]) if chosen else namespace(left).ones_like(
            left
        ) + _zeros(left, rank)

    return tensor.segments(mode).products(rows, rank)[:, 0, :]


def sparse_multi_mode_dot(
    tensor: Sparse, operands: Sequence[Num[Array, "j i"]], mode: int, *, adjoint: bool = False
) -> Num[Array, "i *js"]:
    """A matrix applied to every mode but one, which comes first: the tensor times matrix chain of Tucker.

    As `multi_mode_dot`, but the result is dense, with as many rows as the mode has indices; `operands[mode]`
    is not read. With `adjoint`, the conjugate transposes are applied. The modes are taken in two groups whose
    Kronecker products meet in a matrix product, so that their product itself is not formed entry by entry.

    Raises:
        ShapeError: if an operand does not fit.

    Source: Kolda & Sun 2008; Kaya & Uçar, ICPP 2016.

    >>> import numpy as np
    >>> x = Sparse(np.array([[0, 1, 1], [1, 2, 3]]), np.array([5.0, 7.0]), (2, 3, 4))
    >>> sparse_multi_mode_dot(x, [np.ones((1, 2)), np.ones((2, 3)), np.ones((3, 4))], 0).shape
    (2, 2, 3)
    """
    mode = check_mode(tensor.ndim, mode)
    others = [k for k in range(tensor.ndim) if k != mode]
    matrices = {k: _as_rows(operands[k], adjoint) for k in others}
    _check_rows(tensor, matrices)
    half = _middle([matrices[k].shape[1] for k in others])

    def rows(at: Int[Array, " k"]) -> Pair:
        value = _rows(tensor.values, at)[:, None]
        first, second = others[:half], others[half:]
        left = _kronecker_rows([value, *(_rows(matrices[k], _rows(tensor.columns[k], at)) for k in first)])
        one = namespace(value).ones_like(value)
        right = _kronecker_rows([one, *(_rows(matrices[k], _rows(tensor.columns[k], at)) for k in second)])
        return left, right

    sizes = [matrices[k].shape[1] for k in others]
    product = tensor.segments(mode).products(rows, prod(sizes[:half]) + prod(sizes[half:]))
    return namespace(product).reshape(product, (tensor.shape[mode], *sizes))


@dataclass(frozen=True, eq=False)
class SparseUnfolding:
    """The unfolding of a sparse tensor along a mode, without the fibres that are zero.

    >>> import numpy as np
    >>> x = Sparse(np.array([[0, 1, 1], [1, 2, 3]]), np.array([5.0, 7.0]), (2, 3, 4))
    >>> SparseUnfolding(x, 0).shape, SparseUnfolding(x, 0).adjoint_dot(np.eye(2))
    ((2, 2), array([[5., 0.],
           [0., 7.]]))
    """

    tensor: Sparse
    mode: int

    @cached_property
    def fibres(self) -> Int[Array, " n"]:
        """The number of the fibre of every entry."""
        others = [k for k in range(self.tensor.ndim) if k != self.mode]
        keys = self.tensor.keys(others)
        return namespace(keys).reshape(namespace(keys).unique_inverse(keys).inverse_indices, (-1,))

    @cached_property
    def shape(self) -> tuple[int, int]:
        """The size of the mode, and the number of fibres that are not zero."""
        count = int(namespace(self.fibres).max(self.fibres)) + 1 if self.tensor.nnz else 0
        return self.tensor.shape[self.mode], count

    @cached_property
    def _segments(self) -> Segments:
        return Segments.of(self.fibres, self.shape[1])

    def dot(self, matrix: Num[Array, "fibres r"]) -> Num[Array, "i r"]:
        """The unfolding times a matrix."""
        values, fibres = self.tensor.values, self.fibres
        plan = self.tensor.segments(self.mode)
        rows = matrix.shape[1]
        return plan.products(lambda at: (_rows(values, at)[:, None], _rows(matrix, _rows(fibres, at))), rows)[
            :, 0, :
        ]

    def adjoint_dot(self, matrix: Num[Array, "i r"]) -> Num[Array, "fibres r"]:
        """The conjugate transpose of the unfolding times a matrix."""
        values, column = self.tensor.values, self.tensor.columns[self.mode]
        values = conjugate(values)
        rows = matrix.shape[1]
        return self._segments.products(
            lambda at: (_rows(values, at)[:, None], _rows(matrix, _rows(column, at))), rows
        )[:, 0, :]


def _rows(array: Array, numbers: Array) -> Array:
    return namespace(array).take(array, numbers, axis=0)


def _zeros(like: Array, rank: int) -> Array:
    return namespace(like).zeros((1, rank), dtype=like.dtype, device=device_of(like))


def _as_rows(operand: Array, conjugated: bool) -> Num[Array, "i j"]:
    """The operand with one row for every index of its mode."""
    if not conjugated:
        return operand.T
    return adjoint(operand).T


def _check_rows(tensor: Sparse, matrices: dict[int, Array]) -> None:
    for k, matrix in matrices.items():
        if matrix.ndim != 2 or matrix.shape[0] != tensor.shape[k]:
            raise ShapeError(
                f"mode {k} of the tensor has size {tensor.shape[k]}, but its operand is "
                f"{' x '.join(map(str, reversed(matrix.shape)))}.",
                f"Give a matrix of shape (j, {tensor.shape[k]}).",
            )


def _kronecker_rows(matrices: Sequence[Num[Array, "n _"]]) -> Num[Array, "n p"]:
    """The Kronecker product of the rows of the matrices, row by row."""
    product = matrices[0]
    for matrix in matrices[1:]:
        pairs = product[:, :, None] * matrix[:, None, :]
        product = namespace(pairs).reshape(pairs, (pairs.shape[0], pairs.shape[1] * pairs.shape[2]))
    return product


def _middle(sizes: Sequence[int]) -> int:
    """Where to part a product such that its halves have the smallest sum."""
    return min(range(len(sizes) + 1), key=lambda k: prod(sizes[:k]) + prod(sizes[k:]))
