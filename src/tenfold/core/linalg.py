"""Linear algebra of decompositions: orthonormal bases, normal equations, the SVDs of `tenfold.core.svd`."""

import numpy as np
import torch
from jaxtyping import Float

from tenfold.core.arrays import (
    Array,
    adjoint,
    cast_like,
    constant,
    epsilon,
    is_complex,
    is_traced,
    namespace,
    to_compute,
)
from tenfold.core.chunked import through_memory
from tenfold.core.errors import ShapeError
from tenfold.core.leading import gram_accuracy, leading_left
from tenfold.core.svd import (
    check_matrix,
    randomized_svd,
    rank_for_tolerance,
    truncated_svd,
)

__all__ = [
    "gram_accuracy",
    "leading_left",
    "orthonormalise",
    "randomized_svd",
    "rank_for_tolerance",
    "solve_psd",
    "truncated_svd",
]


@through_memory
def orthonormalise(matrix: Float[Array, "m n"]) -> tuple[Float[Array, "m k"], Float[Array, "k n"]]:
    """An orthonormal basis of the columns, and `matrix` in it: matrix = basis @ coordinates, k = min(m, n).

    The QR factorisation, made unique: the diagonal of the upper triangular `coordinates` is real and not
    negative. Computed in float32 at least; results return in the dtype of `matrix`.

    Raises:
        ShapeError: unless `matrix` has two axes.

    >>> import numpy as np
    >>> basis, coordinates = orthonormalise(np.array([[3.0], [-4.0]]))
    >>> basis.round(12), coordinates.round(12)
    (array([[ 0.6],
           [-0.8]]), array([[5.]]))
    """
    check_matrix(matrix)
    xp = namespace(matrix)
    q, r = xp.linalg.qr(to_compute(matrix))
    diagonal = xp.linalg.diagonal(r)
    zero = diagonal == 0
    phase = xp.where(zero, 1.0, diagonal) / xp.where(zero, 1.0, xp.abs(diagonal))
    return cast_like(q * phase, matrix), cast_like(r * xp.conj(phase)[:, None], matrix)


@through_memory
def solve_psd(gram: Float[Array, "r r"], rhs: Float[Array, "r *k"]) -> Float[Array, "r *k"]:
    """The solution x of gram @ x = rhs for a Hermitian positive semidefinite `gram`, also a singular one.

    By Cholesky's factorisation where the condition allows, else by the eigenvalues above r eps times the
    largest. `gram` is first scaled to ones on its diagonal, so that components of very different size lose
    nothing; of all solutions, a singular `gram` gives the one of least norm in these units. The factors of
    CP solve `solve_psd(gram, mttkrp.T).T`. Computed in float32 at least, and returned in the dtype of
    `rhs`.

    Raises:
        ShapeError: unless `gram` is square and as long as `rhs`.

    >>> import numpy as np
    >>> solve_psd(np.array([[4.0, 0.0], [0.0, 0.0]]), np.array([8.0, 0.0]))
    array([2., 0.])
    """
    _check_system(gram, rhs)
    scaled, scale = _unit_diagonal(to_compute(gram))
    columns = to_compute(rhs)
    columns = scale[:, None] * (columns if rhs.ndim == 2 else columns[:, None])
    lower = None if is_traced(gram, rhs) else _cholesky(scaled)
    if lower is not None and _well_conditioned(lower):
        solution = scale[:, None] * _cholesky_solve(lower, columns)
    else:
        solution = scale[:, None] * _pseudo_solve(scaled, columns)
    return cast_like(solution if rhs.ndim == 2 else solution[:, 0], rhs)


def _check_system(gram: Float[Array, "r r"], rhs: Float[Array, "r *k"]) -> None:
    check_matrix(gram)
    if gram.shape[0] != gram.shape[1] or rhs.ndim not in (1, 2) or rhs.shape[0] != gram.shape[0]:
        raise ShapeError(
            f"expected a square Gram matrix and a right-hand side as long, but got {tuple(gram.shape)} "
            f"and {tuple(rhs.shape)}.",
            "Both must have r rows.",
        )


def _unit_diagonal(gram: Float[Array, "r r"]) -> tuple[Float[Array, "r r"], Float[Array, " r"]]:
    """D gram D with ones on its diagonal, and D: nearly the best condition there is (van der Sluis 1969)."""
    xp = namespace(gram)
    diagonal = xp.linalg.diagonal(gram)
    diagonal = xp.real(diagonal) if is_complex(gram) else diagonal
    positive = diagonal > 0
    scale = xp.where(positive, 1.0 / xp.sqrt(xp.where(positive, diagonal, 1.0)), 1.0)
    return gram * scale[:, None] * scale, scale


def _cholesky(gram: Float[Array, "r r"]) -> Float[Array, "r r"] | None:
    """The lower triangular factor; None where there is none, which libraries report by an error or by NaN."""
    xp = namespace(gram)
    try:
        lower = xp.linalg.cholesky(gram)
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError):
        return None
    return lower if bool(xp.all(xp.isfinite(lower))) else None


def _well_conditioned(lower: Float[Array, "r r"]) -> bool:
    """Whether no eigenvalue of lower @ lowerᴴ can be taken for rounding, judged by the diagonal."""
    xp = namespace(lower)
    diagonal = xp.abs(xp.linalg.diagonal(lower))
    return bool(xp.min(diagonal) ** 2 > 10 * lower.shape[0] * epsilon(lower) * xp.max(diagonal) ** 2)


def _cholesky_solve(lower: Float[Array, "r r"], rhs: Float[Array, "r k"]) -> Float[Array, "r k"]:
    """Two triangular solves in PyTorch; the array API has none, so LU in the other libraries.

    Of what Cholesky has taken apart, which read one triangle: the other may differ by rounding.
    """
    if isinstance(lower, torch.Tensor):
        return torch.cholesky_solve(rhs, lower)
    return namespace(lower).linalg.solve(lower @ adjoint(lower), rhs)


def _pseudo_solve(gram: Float[Array, "r r"], rhs: Float[Array, "r k"]) -> Float[Array, "r k"]:
    """V diag(1/w) Vᴴ rhs over the eigenvalues w that are not rounding.

    Not the eigenvectors are differentiated, but the equation: gram dx = drhs - dgram x.
    """
    xp = namespace(gram)
    w, v = xp.linalg.eigh(constant(gram))
    kept = w > gram.shape[0] * epsilon(gram) * xp.max(w)
    inverse = xp.where(kept, 1.0 / xp.where(kept, w, 1.0), 0.0)

    def solved(columns: Array) -> Array:
        return v @ (inverse[:, None] * (adjoint(v) @ columns))

    solution = solved(constant(rhs))
    return solution + solved(rhs - gram @ solution)
