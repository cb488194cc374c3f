"""Products of matrices and tensors: Kronecker, Khatri-Rao, Hadamard, outer, inner.

Products of many associate to the left; the last operand varies fastest, as befits the unfoldings in C order.
"""

from collections.abc import Sequence
from functools import reduce

from jaxtyping import Num

from tenfold.algebra.unfolding import vec
from tenfold.core.arrays import Array, conjugate, namespace
from tenfold.core.errors import ShapeError


def kronecker(matrices: Sequence[Num[Array, "_ _"]]) -> Num[Array, "m n"]:
    """A ⊗ B ⊗ …: every entry of A times B. Its shape is the product of their shapes.

    Raises:
        ShapeError: if there is none, or one is no matrix.

    >>> import numpy as np
    >>> kronecker([np.array([[1, 2]]), np.array([[1], [10]])])
    array([[ 1,  2],
           [10, 20]])
    """
    _check_matrices(matrices)
    return reduce(_kronecker_pair, matrices)


def _kronecker_pair(a: Num[Array, "m n"], b: Num[Array, "p q"]) -> Num[Array, "mp nq"]:
    shape = (a.shape[0] * b.shape[0], a.shape[1] * b.shape[1])
    return namespace(a, b).reshape(a[:, None, :, None] * b[None, :, None, :], shape)


def khatri_rao(matrices: Sequence[Num[Array, "_ r"]]) -> Num[Array, "m r"]:
    """A ⊙ B ⊙ …: column r is the Kronecker product of the columns r.

    In this order `unfold(cp, n) = factors[n] @ khatri_rao(the others, in their order).T`.

    Raises:
        ShapeError: if there is none, one is no matrix, or the numbers of columns differ.

    >>> import numpy as np
    >>> khatri_rao([np.array([[1, 2], [3, 4]]), np.array([[1, 1], [10, 100]])])
    array([[  1,   2],
           [ 10, 200],
           [  3,   4],
           [ 30, 400]])
    """
    _check_matrices(matrices)
    ranks = [matrix.shape[1] for matrix in matrices]
    if len(set(ranks)) > 1:
        raise ShapeError(
            f"the matrices of a Khatri-Rao product have {', '.join(map(str, ranks))} columns.",
            "All must have the same number.",
        )
    return reduce(_khatri_rao_pair, matrices)


def _khatri_rao_pair(a: Num[Array, "m r"], b: Num[Array, "n r"]) -> Num[Array, "mn r"]:
    return namespace(a, b).reshape(a[:, None, :] * b[None, :, :], (a.shape[0] * b.shape[0], a.shape[1]))


def _check_matrices(matrices: Sequence[Array]) -> None:
    shapes = [tuple(matrix.shape) for matrix in matrices]
    if not shapes or any(len(shape) != 2 for shape in shapes):
        raise ShapeError(
            f"expected matrices, but got shapes {', '.join(map(str, shapes)) or 'of nothing'}.",
            "Give a sequence of at least one array with two axes.",
        )


def hadamard(tensors: Sequence[Num[Array, "*shape"]]) -> Num[Array, "*shape"]:
    """A ∗ B ∗ …: the product of the entries, without broadcasting.

    Raises:
        ShapeError: if there is none, or the shapes differ.

    >>> import numpy as np
    >>> hadamard([np.array([1, 2]), np.array([3, 4]), np.array([1, 10])])
    array([ 3, 80])
    """
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) != 1:
        raise ShapeError(
            f"expected tensors of one shape, but got {', '.join(map(str, shapes)) or 'none'}.",
            "Give a sequence of at least one tensor, all of the same shape.",
        )
    return reduce(lambda a, b: a * b, tensors)


def outer(tensors: Sequence[Num[Array, "..."]]) -> Num[Array, "..."]:
    """A ∘ B ∘ …: all products of an entry of each; its shape is their shapes one after the other.

    Raises:
        ShapeError: if there is none.

    >>> import numpy as np
    >>> outer([np.array([1, 2]), np.array([1, 10, 100])])
    array([[  1,  10, 100],
           [  2,  20, 200]])
    """
    if not tensors:
        raise ShapeError("the outer product of no tensor is not defined.", "Give at least one.")
    return reduce(_outer_pair, tensors)


def _outer_pair(a: Num[Array, "*m"], b: Num[Array, "*n"]) -> Num[Array, "..."]:
    xp = namespace(a, b)
    return xp.reshape(vec(a)[:, None] * vec(b)[None, :], (*a.shape, *b.shape))


def inner(a: Num[Array, "..."], b: Num[Array, "..."], modes: int | None = None) -> Num[Array, "..."]:
    """⟨A, B⟩ = Σ conj(A) B over all modes, or over the last `modes` of `a` and the first `modes` of `b`.

    Complex entries of `a` are conjugated in both cases, so that `inner(a, a)` is the squared norm. The
    result is an array of the remaining modes, without axes if there are none.

    Raises:
        ShapeError: if the modes to sum over have different sizes.

    >>> import numpy as np
    >>> float(inner(np.ones((2, 3)), np.full((2, 3), 5.0)))
    30.0
    >>> inner(np.ones((4, 2, 3)), np.ones((2, 3, 5)), 2).shape
    (4, 5)
    """
    xp, count = namespace(a, b), max(a.ndim, b.ndim) if modes is None else modes
    last, first = tuple(a.shape[max(0, a.ndim - count) :]), tuple(b.shape[:count])
    if last != first or not 0 <= count <= a.ndim:
        raise ShapeError(
            f"cannot sum over {'all' if modes is None else modes} modes of tensors of shapes "
            f"{tuple(a.shape)} and {tuple(b.shape)}.",
            "The last modes of the first must have the sizes of the first modes of the second.",
        )
    return xp.tensordot(conjugate(a), b, axes=count)
