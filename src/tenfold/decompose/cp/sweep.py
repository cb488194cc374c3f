"""One sweep of alternating least squares over the factors of CP, and its least-squares problems.

For factor A, with the Khatri–Rao product K of the others, Γ = KᵀK̄ and a penalty Σ_r w_r ‖a_r - t_r‖²,

    A (Γ + diag w) = MTTKRP(X) + T diag w

by Cholesky's factorisation of Γ + diag w, which loses cond(Γ) = cond(K)² digits. Past sqrt(1 / eps) it is K
that is factorised: with U_m = Q_m R_m for every other factor, K = (⊗ Q_m) (⊙ R_m), so that the tensor is
projected on the Q_m, and only the short product of the R_m has its QR.

Source: Minster, Viviano, Liu & Ballard, 'CP decomposition for tensors via alternating least squares with QR
decomposition', 2023, arXiv:2112.10855.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Num

from tenfold.algebra import khatri_rao, mttkrp_sweep, multi_mode_dot, unfold
from tenfold.algebra.mttkrp import allowed_bytes
from tenfold.core.arrays import (
    Array,
    adjoint,
    conjugate,
    device_of,
    epsilon,
    is_complex,
    is_traced,
    namespace,
)
from tenfold.core.linalg import solve_psd
from tenfold.decompose.cp.grams import cancels, gram, hadamard, residual_norm, square_by_parts


def sweep(
    tensor: Num[Array, "*shape"],
    factors: Sequence[Num[Array, "_ r"]],
    whole: float,
    *,
    ridge: float = 0.0,
    damping: float = 0.0,
) -> tuple[list[Num[Array, "_ r"]], float]:
    """Renew every factor once; also returns ‖X - M‖ afterwards, which costs nothing until it gets small.

    `ridge` weighs the diagonal of Γ, which penalises the norms of the components; `damping`, times the mean
    of the diagonal, penalises the change of the factor. `whole` is ‖X‖.
    """
    factors = list(factors)
    grams = [gram(f) for f in factors]
    conjugates = [conjugate(f) for f in factors]
    projected = factors[-1]
    for k, projected in mttkrp_sweep(tensor, conjugates):
        gamma = hadamard(grams[:k] + grams[k + 1 :], like=grams[k])
        factors[k] = renewed(tensor, factors, k, gamma, projected, ridge, damping)
        grams[k] = gram(factors[k])
        conjugates[k] = conjugate(factors[k])
    return factors, _error(tensor, factors, projected, grams, whole)


def _error(
    tensor: Array, factors: Sequence[Array], projected: Array, grams: Sequence[Array], whole: float
) -> float:
    """‖X - M‖ from the last factor's MTTKRP, or from the residual where that would cancel."""
    square = square_by_parts(projected, factors[-1], grams, whole)
    if is_traced(tensor) or cancels(square, tensor, whole):
        return residual_norm(tensor, factors)
    return float(math.sqrt(square))


def renewed(
    tensor: Num[Array, "*shape"],
    factors: Sequence[Num[Array, "_ r"]],
    mode: int,
    gamma: Num[Array, "r r"],
    projected: Num[Array, "i r"],
    ridge: float,
    damping: float,
) -> Num[Array, "i r"]:
    """The factor of a mode for the others as they are; `projected` is its MTTKRP."""
    xp = namespace(gamma)
    diagonal = xp.linalg.diagonal(gamma)
    diagonal = xp.real(diagonal) if is_complex(diagonal) else diagonal
    step = damping * xp.mean(diagonal)
    weights = ridge * diagonal + step
    shifted = gamma + weights * xp.eye(gamma.shape[0], dtype=gamma.dtype, device=device_of(gamma))
    if not safe(shifted) and _fits(tensor, factors, mode):
        return by_qr(tensor, factors, mode, weights, step)
    return solve_psd(shifted, (projected + step * factors[mode]).T).T


def safe(gamma: Num[Array, "r r"]) -> bool:
    """Whether Cholesky's factorisation of Γ, with its diagonal scaled to ones, keeps half the digits.

    Judged by the diagonal of the triangular factor. Always so for traced arrays, which have no values yet.

    >>> safe(np.diag([1.0, 1e-20])), safe(np.ones((2, 2)))
    (True, False)
    """
    if is_traced(gamma):
        return True
    xp = namespace(gamma)
    diagonal = xp.abs(xp.linalg.diagonal(gamma))
    scale = 1 / xp.sqrt(xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal)))
    try:
        lower = xp.linalg.cholesky(gamma * scale[:, None] * scale)
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError):
        return False
    pivots = xp.abs(xp.linalg.diagonal(lower))
    return bool(xp.all(xp.isfinite(pivots)) & (xp.min(pivots) ** 2 > epsilon(gamma) ** 0.5))


def _fits(tensor: Array, factors: Sequence[Array], mode: int) -> bool:
    """Whether the product of the small factors, and the projected tensor, fit in the memory of an MTTKRP."""
    rank = factors[0].shape[1]
    short = math.prod(min(f.shape) for k, f in enumerate(factors) if k != mode)
    numbers = 3 * short * rank + 2 * short * factors[mode].shape[0]
    return tensor.ndim > 1 and numbers * int(tensor.dtype.itemsize) <= allowed_bytes(tensor, None)


def by_qr(
    tensor: Num[Array, "*shape"],
    factors: Sequence[Num[Array, "_ r"]],
    mode: int,
    weights: Float[Array, " r"],
    step: Float[Array, ""],
) -> Num[Array, "i r"]:
    """The factor of least ‖X - A Kᵀ‖² + Σ_r w_r ‖a_r - t_r‖², with w_r t_r = step a_r of the old factor.

    Least squares with the rows of sqrt(w) below K, by a QR factorisation and the pseudo-inverse of its
    triangular factor.
    """
    xp = namespace(tensor)
    pairs = {k: xp.linalg.qr(f) for k, f in enumerate(factors) if k != mode}
    small = multi_mode_dot(tensor, [adjoint(q) for q, _ in pairs.values()], list(pairs))
    roots = xp.sqrt(weights)
    below = roots * xp.eye(roots.shape[0], dtype=tensor.dtype, device=device_of(tensor))
    known = factors[mode] * (step / xp.where(roots > 0, roots, xp.ones_like(roots)))
    q, r = xp.linalg.qr(xp.concat([khatri_rao([r for _, r in pairs.values()]), below]))
    targets = xp.concat([unfold(small, mode), known], axis=1)
    return targets @ conjugate(q) @ xp.linalg.pinv(r).T
