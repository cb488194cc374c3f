"""Unfoldings that are never formed: views of a tensor, worked on piece by piece, so that copies are small."""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from math import hypot, isfinite, prod
from operator import add

import numpy as np
import torch
from jaxtyping import Float

from tenfold.core.arrays import Array, adjoint, is_complex, is_traced, namespace, root
from tenfold.core.chunked import through_memory

PIECE = 2**20
"""Entries of a tensor that are worked on at once: copies of them are small beside a large tensor, and below
the 32 MB from which glibc has the system map, and clear, new memory for each."""


@through_memory
def outside(x: Float[Array, "*shape"], mode: int, basis: Float[Array, "i r"]) -> float:
    """‖X - U Uᴴ X‖ for the unfolding X of a mode, measured piece by piece."""
    matrices = (unfolded(piece) for piece in pieces(three_way(x, mode)))
    return together(*(_norm(m - basis @ (adjoint(basis) @ m)) for m in matrices))


def unfolded_shape(x: Array, mode: int) -> tuple[int, int]:
    """Rows and columns of the unfolding of a mode."""
    rest = prod(n for k, n in enumerate(x.shape) if k != mode)
    return x.shape[mode], rest


def three_way(x: Float[Array, "*shape"], mode: int) -> Float[Array, "before i after"]:
    """The modes before, the mode, and those after it: a view of a contiguous tensor."""
    before = prod(x.shape[:mode])
    return namespace(x).reshape(x, (before, x.shape[mode], -1))


def pieces(x: Float[Array, "b i a"]) -> Iterator[Float[Array, "b1 i a1"]]:
    """A tensor cut along its longer outer axis into views of about `PIECE` entries."""
    b, i, a = x.shape
    count = max(1, min(max(b, a), -(-b * i * a // PIECE)))
    for n in range(count):
        if b >= a:
            yield x[b * n // count : b * (n + 1) // count, :, :]
        else:
            yield x[:, :, a * n // count : a * (n + 1) // count]


def unfolded(x: Float[Array, "b i a"]) -> Float[Array, "i rest"]:
    """The unfolding of the middle mode; a view where there is nothing before or nothing after it."""
    xp, (b, i, a) = namespace(x), x.shape
    if b == 1:
        return x[0, :, :]
    return x[:, :, 0].T if a == 1 else xp.reshape(xp.permute_dims(x, (1, 0, 2)), (i, b * a))


def mode_gram(x: Float[Array, "*shape"], mode: int) -> Float[Array, "i i"]:
    """X Xᴴ for the unfolding X of a mode, which is not formed.

    >>> import numpy as np
    >>> mode_gram(np.ones((2, 3, 4)), 1)[0, 0]
    np.float64(8.0)
    """
    return reduce(add, (_piece_gram(piece) for piece in pieces(three_way(x, mode))))


def _piece_gram(x: Float[Array, "b i a"]) -> Float[Array, "i i"]:
    """Long slices are multiplied where they are, short ones are brought together first."""
    b, i, a = x.shape
    if b == 1 or a < i:
        matrix = unfolded(x)
        return matrix @ adjoint(matrix)
    xp = namespace(x)
    return xp.sum(x @ adjoint(x), axis=0)


def gram(matrices: Iterable[Float[Array, "i c"]]) -> Float[Array, "i i"]:
    """M Mᴴ for the matrix M whose columns come piece by piece."""
    return reduce(add, (m @ adjoint(m) for m in matrices))


def slabs(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Where a tensor is cut along its longest mode into parts of about `PIECE` entries; none for no entries.

    >>> [where[1] for where in slabs((3, 2**20))]
    [slice(0, 349525, None), slice(349525, 699050, None), slice(699050, 1048576, None)]
    """
    longest = max(range(len(shape)), key=lambda k: shape[k])
    count = min(shape[longest], max(1, -(-prod(shape) // PIECE)))
    for n in range(count if prod(shape) else 0):
        cut = slice(shape[longest] * n // count, shape[longest] * (n + 1) // count)
        yield tuple(cut if k == longest else slice(None) for k in range(len(shape)))


def frobenius(x: Float[Array, "*shape"]) -> float:
    """Frobenius norm as a number that no gradient flows through, without a copy of the squares.

    Where values are not known, as inside `jax.jit`, it stays an array.
    """
    if is_traced(x) or x.ndim == 0:
        return _norm(x)
    return together(*(_norm(x[where]) for where in slabs(x.shape)))


def together(*norms: float) -> float:
    """The norm of a sum of orthogonal parts, from their norms."""
    if is_traced(*norms):
        return root(sum(n**2 for n in norms))
    return hypot(*norms)


def _norm(x: Float[Array, "..."]) -> float:
    """Frobenius norm; scaled by the largest entry where squares over- or underflow."""
    xp = namespace(x)
    if is_traced(x):
        return root(xp.sum(xp.real(x * xp.conj(x)) if is_complex(x) else x * x))
    x = x.detach() if isinstance(x, torch.Tensor) else x
    value = float(_plain_norm(x))
    if isfinite(value) and value**2 > 1e6 * float(xp.finfo(x.dtype).smallest_normal):
        return value
    largest = float(xp.max(xp.abs(x))) if prod(x.shape) else 0.0
    return largest * float(_plain_norm(x / largest)) if isfinite(largest) and largest > 0 else value


def _plain_norm(x: Float[Array, "..."]) -> Float[Array, ""]:
    """By a dot product for NumPy, which writes an array of squares otherwise."""
    if isinstance(x, np.ndarray) and not is_complex(x):
        flat = np.reshape(x, (-1,))
        with np.errstate(over="ignore"):
            return np.sqrt(np.dot(flat, flat))
    return namespace(x).linalg.vector_norm(x)
