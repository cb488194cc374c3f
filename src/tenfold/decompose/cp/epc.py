"""CP whose components do not cancel one another: the least sensitivity at the error that ALS found."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.algebra import mttkrp_sweep
from tenfold.core.arrays import Array, adjoint, conjugate, device_of, epsilon, namespace
from tenfold.core.errors import OptionError
from tenfold.core.linalg import solve_psd
from tenfold.core.network import Network
from tenfold.decompose.base import Fit, Method, check_steps, methods, norm, number, relative
from tenfold.decompose.cp.als import CPALS
from tenfold.decompose.cp.grams import cancels, hadamard, residual_norm
from tenfold.decompose.cp.sensitivity import sensitivity, squared_norms, stillest, weights
from tenfold.formats import CP

HALVINGS = 45


@methods.register("cp_epc")
@dataclass(frozen=True)
class CPEPC(Method[CP]):
    """CP by ALS, then the error-preserving correction: the least `sensitivity` at nearly the same error.

    Where large components cancel one another, the fit may be good, but fine-tuning and low precision move it
    far. The error grows by `slack` relative to it at most, and the explained energy falls by no more. On
    kernels of a trained network, the sensitivity becomes 2 to 3 times less (3 to 5 times less than that of
    ALS without its ridge). All vectors of a component have entries of the same size, see `stillest`.

    `start`, `restarts`, `fit_tol` and `fit_steps` are the `start`, `restarts`, `tol` and `max_steps` of
    `CPALS`. The correction stops (`converged`) when a sweep lowers the sensitivity by less than `tol`
    relative to it, or after `max_steps`; its sweeps cost a few times those of ALS.

    Source: Phan et al., ECCV 2020, arXiv:2008.05441 (CPD-EPC).

    >>> import numpy as np
    >>> from tenfold.decompose.cp.sensitivity import sensitivity
    >>> x = np.random.default_rng(0).standard_normal((8, 8, 9))
    >>> als, epc = CPALS().fit(x, 20, generator=0), CPEPC().fit(x, 20, generator=0)
    >>> epc.error <= 1.01 * als.error, sensitivity(epc.value) < 0.75 * sensitivity(als.value)
    (True, True)
    """

    format: ClassVar = CP
    levels: ClassVar = True
    slack: float = 0.01
    tol: float = 1e-4
    max_steps: int = 100
    start: str = "hosvd"
    restarts: int = 1
    fit_tol: float = 1e-5
    fit_steps: int = 100

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        if self.tol < 0 or not 0 <= self.slack < 1:
            raise OptionError(f"{self} has an option out of range.", "Give tol >= 0 and 0 <= slack < 1.")
        self._als()

    def _als(self) -> CPALS:
        return CPALS(self.fit_tol, self.fit_steps, self.start, self.restarts)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[CP]:
        fit = self._als()._fit(tensor, network, generator)
        limit = norm(tensor) * allowed(fit.error, self.slack)
        done = corrected(tensor, fit.value, limit, tol=self.tol, max_steps=self.max_steps)
        return Fit(done.value, done.error, fit.steps + done.steps, done.converged, fit.trace + done.trace)


def allowed(error: float, slack: float) -> float:
    """A relative error up to 1 + `slack` times `error`, which leaves 1 - `slack` of the explained energy.

    >>> allowed(0.5, 0.0), allowed(0.5, 0.01), allowed(1.0, 0.01)
    (0.5, 0.505, 1.0)
    """
    return min((1 + slack) * error, math.sqrt(max(1 - (1 - slack) * (1 - error**2), 0.0)))


def corrected(tensor: Array, cp: CP, limit: float, *, tol: float = 1e-4, max_steps: int = 100) -> Fit[CP]:
    """The least sensitive CP with ‖tensor - CP‖ <= `limit`, by alternating steps from `cp`, which is one.

    Every other sweep starts from a point further along the last change, and counts if it improves. Of a
    vector all decompositions are equally sensitive.
    """
    whole = norm(tensor)
    value = before = stillest(cp)
    trace: list[float] = []
    converged = len(cp.shape) == 1
    while not converged and len(trace) < max_steps:
        starts = [further(value, before, len(trace) ** (1 / 3)), value] if len(trace) % 2 else [value]
        tries = (sweep(tensor, start, limit, whole) for start in starts)
        found = next(((new, error) for new, error in tries if improves(new, value, error, limit)), None)
        if found is None:
            converged = True
        else:
            before, (value, error) = value, found
            trace.append(relative(error, whole))
            converged = sensitivity(before) - sensitivity(value) <= tol * sensitivity(before)
    return Fit(
        value, relative(residual_norm(tensor, value.matrices), whole), len(trace), converged, tuple(trace)
    )


def improves(new: CP, old: CP, error: float, limit: float) -> bool:
    """Whether `new` is less sensitive, with an error that is over the limit by rounding at most."""
    rounding = epsilon(new.factors[0]) ** 0.5
    return error <= limit * (1 + rounding) and sensitivity(new) < sensitivity(old)


def further(value: CP, before: CP, step: float) -> CP:
    """The point `step` times as far from `before` as `value` (N-way toolbox; Andersson & Bro 2000)."""
    return CP(tuple(b + step * (v - b) for v, b in zip(value.matrices, before.matrices, strict=True)))


def sweep(tensor: Array, cp: CP, limit: float, whole: float) -> tuple[CP, float]:
    """Renew every factor once; also returns the error."""
    conjugates, error = [conjugate(f) for f in cp.matrices], whole
    for k, projected in mttkrp_sweep(tensor, conjugates):
        factor, error = renewed(tensor, cp, k, projected, limit, whole)
        cp = CP((*cp.matrices[:k], factor, *cp.matrices[k + 1 :]))
        conjugates[k] = conjugate(factor)
    return stillest(cp), error


def renewed(
    tensor: Array, cp: CP, mode: int, projected: Array, limit: float, whole: float
) -> tuple[Array, float]:
    """The factor A of least Σ_r w_r ‖a_r‖² with ‖X - A Zᵀ‖ <= `limit`, and that error.

    For D = diag(w)^(-1/2) it is A = H (Γ + μ I)⁻¹ D, with H = X Z̄ D and Γ = D Zᴴ Z D: ridge regression, with
    μ chosen by the error (discrepancy principle). Where even μ = 0 misses the limit, the least error.
    """
    xp, w = namespace(projected), weights(cp, mode)
    scale = xp.where(w > 0, 1 / xp.sqrt(xp.where(w > 0, w, xp.ones_like(w))), xp.zeros_like(w))
    grams = [adjoint(f) @ f for k, f in enumerate(cp.matrices) if k != mode]
    gamma = hadamard(grams, like=scale[:, None] * scale) * scale[:, None] * scale
    target = projected * scale
    values, parts = spectrum(gamma, target)
    least = whole**2 - number(xp.sum(parts))
    if cancels(least, tensor, whole):
        best = solve_psd(gamma, target.T).T * scale
        least = residual_norm(tensor, (*cp.matrices[:mode], best, *cp.matrices[mode + 1 :])) ** 2
    mu, rise = ridge_of(values, parts, limit**2 - least)
    shift = mu * xp.eye(gamma.shape[0], dtype=gamma.dtype, device=device_of(gamma))
    return solve_psd(gamma + shift, target.T).T * scale, math.sqrt(max(least + rise, 0.0))


def spectrum(gamma: Array, target: Array) -> tuple[Array, Array]:
    """Eigenvalues l of Γ = V diag(l) Vᴴ, and the energy ‖(H V̄)_i‖² / l_i that each of them explains.

    Eigenvalues that are rounding errors explain nothing.
    """
    xp = namespace(gamma)
    values, vectors = xp.linalg.eigh(gamma)
    real = values > gamma.shape[0] * epsilon(gamma) * xp.max(values)
    energy = squared_norms((adjoint(vectors) @ target.T).T)
    values = xp.where(real, values, xp.ones_like(values))
    return values, xp.where(real, energy / values, xp.zeros_like(energy))


def ridge_of(values: Array, parts: Array, room: float) -> tuple[float, float]:
    """μ for which ridge regression adds `room` to the least squared error, and what it adds; 0 without room.

    It adds Σ_i parts_i (μ / (l_i + μ))², which grows with μ: bisection in its logarithm.

    >>> import numpy as np
    >>> mu, rise = ridge_of(np.array([1.0, 3.0]), np.array([4.0, 0.0]), 1.0)
    >>> round(mu, 6), round(rise, 6)
    (1.0, 1.0)
    """
    xp = namespace(values)
    largest, low, high, rise = number(xp.max(values)), -80.0, 40.0, 0.0
    for _ in range(HALVINGS if room > 0 else 0):
        middle = (low + high) / 2
        mu = largest * 2**middle
        added = number(xp.sum(parts * (mu / (values + mu)) ** 2))
        low, high, rise = (middle, high, added) if added <= room else (low, middle, rise)
    return (largest * 2**low, rise) if rise else (0.0, 0.0)
