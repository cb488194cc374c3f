"""Leading left singular vectors of an unfolding of a Dask array that is larger than memory.

One pass gives the Gram matrix of the shorter side, and with it singular values down to sqrt(eps) times the
largest. Where what is discarded is smaller, a second pass makes the Gram matrix of the rows turned by the
first one's eigenvectors and scaled by its eigenvalues, which gives all the digits of an SVD (see
`core.leading`).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from tenfold.core import chunked
from tenfold.core.arrays import Array, check_finite, is_chunked
from tenfold.core.errors import UnsupportedError, WeightError
from tenfold.core.passes import Modes, gram, largest, project
from tenfold.core.svd import fix_signs, rank_for_tolerance

ACCURACY = 1e-5
"""Relative norm of what is discarded, below which one Gram matrix is not accurate enough (measured)."""

SMALLEST = (1e6 * float(np.finfo(np.float64).smallest_normal)) ** 0.5
"""Norms below this may be of squares that have lost digits."""


@dataclass(frozen=True, eq=False)
class Cut:
    """An orthonormal basis U of the unfolding X, ‖X - U Uᴴ X‖, ‖X‖, and Uᴴ X where it is known already."""

    basis: Num[np.ndarray, "n r"]
    discarded: float
    whole: float
    projection: Num[np.ndarray, "r *others"] | None = None


def leading(
    x: Num[Array, "..."],
    rows: Modes,
    rank: int,
    tol: float = 0.0,
    whole: float | None = None,
    known: Num[np.ndarray, "n n"] | None = None,
) -> Cut:
    """At most `rank` leading left singular vectors of the unfolding whose rows are the modes `rows`, and no
    more than the tolerance `tol` relative to `whole` (by default the norm of `x`) asks for.

    Takes one pass over the chunks, or two where what is discarded is below 1e-5 of the norm; none if the Gram
    matrix of the rows is `known`. Where the unfolding has more rows than columns, one more pass.

    Raises:
        WeightError: if an entry is NaN or infinite.
        UnsupportedError: if both sides of the unfolding are too long for a Gram matrix.
    """
    others = tuple(k for k in range(x.ndim) if k not in rows)
    flipped = length(x, rows) > length(x, others)
    side = others if flipped else rows
    _check_side(x, side)
    first = gram(x, side) if known is None or flipped else known
    own = math.sqrt(max(float(np.trace(first).real), 0.0))
    check_norm(x, own)
    vectors, s = spectrum(first)
    allowed = tol * (own if whole is None else whole)
    kept = _kept(s, rank, allowed)
    if kept < len(s) and own > 0 and np.linalg.norm(s[kept:]) <= ACCURACY * own:
        vectors, s = _refined(x, side, vectors, s)
        kept = _kept(s, rank, allowed)
    basis = _other_side(x, others, vectors[:, :kept]) if flipped else vectors[:, :kept]
    return Cut(fix_signs(basis, basis.T)[0], float(np.linalg.norm(s[kept:])), own)


def length(x: Num[Array, "..."], modes: Modes) -> int:
    """The product of the sizes of some modes."""
    return math.prod(x.shape[k] for k in modes)


def _kept(s: Float[np.ndarray, " k"], rank: int, tolerance: float) -> int:
    return min(rank, rank_for_tolerance(s, tolerance)) if tolerance > 0 else min(rank, len(s))


def spectrum(gram_matrix: Num[np.ndarray, "n n"]) -> tuple[Num[np.ndarray, "n n"], Float[np.ndarray, " n"]]:
    """Left singular vectors and values, largest first."""
    values, vectors = np.linalg.eigh(gram_matrix)
    return vectors[:, ::-1], np.sqrt(np.clip(values[::-1], 0.0, None))


def _refined(
    x: Num[Array, "..."], side: Modes, vectors: Num[np.ndarray, "n n"], s: Float[np.ndarray, " n"]
) -> tuple[Num[np.ndarray, "n n"], Float[np.ndarray, " n"]]:
    """Left singular vectors and values to full precision.

    With D not below the rounding errors of the first Gram matrix, D⁻¹ Vᴴ X has rows of size one at most. Its
    Gram matrix W M Wᴴ makes V D W sqrt(M), which has the left singular vectors and the singular values of X.
    """
    scale = np.maximum(s, (len(s) * np.finfo(np.float64).eps) ** 0.5 * s[0])
    second = gram(x, side, (vectors / scale).conj().T)
    turned, root = spectrum(second)
    u, values, _ = np.linalg.svd((vectors * scale) @ turned * root)
    return u, values


def _other_side(
    x: Num[Array, "..."], others: Modes, vectors: Num[np.ndarray, "m r"]
) -> Num[np.ndarray, "n r"]:
    """The left singular vectors U of X from the leading ones of Xᵀ, which are conj(V): X V = U S."""
    product = project(x, vectors, others)
    if is_chunked(product):
        raise UnsupportedError(
            f"a basis of shape {(product[0].size, product.shape[0])} is more than the "
            f"{chunked.IN_MEMORY:,} bytes that are taken into memory.",
            "Choose a smaller rank.",
        )
    basis, _ = np.linalg.qr(product.reshape(product.shape[0], -1).T)
    return basis


def _check_side(x: Num[Array, "..."], side: Modes) -> None:
    size = length(x, side)
    if size**2 * 8 > chunked.IN_MEMORY:
        raise UnsupportedError(
            f"an unfolding whose shorter side is {size:,} long needs a Gram matrix of more than the "
            f"{chunked.IN_MEMORY:,} bytes that are taken into memory.",
            "Choose smaller ranks, leave this mode whole, or use a randomized method.",
        )


def check_norm(x: Num[Array, "..."], norm: float) -> None:
    """Refuse a tensor whose norm is not finite, or whose squares are lost below the smallest numbers.

    That a tensor with a norm of almost nothing is zero takes one more pass to see.
    """
    if not math.isfinite(norm):
        check_finite(x, "the tensor")
        raise WeightError("the squares of the tensor's entries are not finite.", "Scale it first.")
    if norm < SMALLEST and largest(x) > 0:
        raise WeightError("the squares of the tensor's entries are too small for float64.", "Scale it first.")
