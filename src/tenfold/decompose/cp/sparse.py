"""What the algorithms of CP need of a sparse tensor, which they never make dense.

An error is calculated by ‖X‖² - 2 Re⟨X, M⟩ + ‖M‖², which is accurate to about sqrt(eps) of the norm: 1e-8, or
3e-4 in float32. Below that, sweeps and steps go on, but are not told apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Num

from tenfold.algebra.sparse import sparse_mttkrp
from tenfold.core.arrays import Array, conjugate, constant, device_of, epsilon, namespace
from tenfold.core.linalg import orthonormalise, solve_psd
from tenfold.core.noise import normal
from tenfold.core.sparse import Sparse
from tenfold.decompose.base import Fit, norm, relative
from tenfold.decompose.cp.grams import balanced, gram, hadamard, square_by_parts
from tenfold.decompose.cp.local import CPLocal, CPProblem
from tenfold.decompose.cp.ridge import penalties, ridged
from tenfold.decompose.entries.sparse_residual import sparse_residual
from tenfold.decompose.gauss_newton import GaussNewton
from tenfold.decompose.local_problem import Point
from tenfold.formats import CP


class SparseCPProblem(CPProblem):
    """½‖[[U₁, …, U_N]] - T‖² of a sparse tensor: MTTKRPs go over its entries, all else is as ever."""

    def __init__(self, tensor: Sparse, explicit: int = 100) -> None:
        self.tensor, self.explicit = tensor, explicit
        self.whole = norm(tensor.values)
        self.close = False

    def at(self, point: Point) -> "SparseCPLocal":
        """The problem near some factors."""
        return SparseCPLocal(self, point)


class SparseCPLocal(CPLocal):
    """The problem near the factors `point`."""

    problem: SparseCPProblem

    def _product(self, mode: int) -> Array:
        return sparse_mttkrp(self.problem.tensor, [conjugate(f) for f in self.point], mode)

    @cached_property
    def _first(self) -> Array:
        return self._product(0)

    @cached_property
    def value(self) -> float:
        """½‖F‖², not below zero."""
        square = square_by_parts(self._first, self.point[0], self.grams, self.problem.whole)
        return max(square, (epsilon(self.point[0]) * self.problem.whole) ** 2) / 2

    @cached_property
    def gradient(self) -> Point:
        """U_n W_nᵀ - MTTKRP_n(T)."""
        products = [self._first, *(self._product(n) for n in range(1, len(self.point)))]
        return tuple(u @ w.T - p for u, w, p in zip(self.point, self.others, products, strict=True))

    def settled(self) -> "SparseCPLocal":
        """The same components, with their norms spread evenly."""
        return SparseCPLocal(self.problem, tuple(balanced(self.point)))


def sparse_start(tensor: Sparse, rank: int, how: str, generator: Any) -> list[Num[Array, "_ r"]]:
    """Random factors, or bases of the ranges of the unfoldings, found by random Khatri–Rao products.

    Source of the latter: Halko, Martinsson & Tropp 2011, arXiv:0909.4061, with a structured test matrix.
    """
    factors = [normal((n, rank), like=tensor.values, generator=generator) for n in tensor.shape]
    if how == "random" or tensor.ndim == 1:
        return factors
    return [_range(tensor, factors, k) for k in range(tensor.ndim)]


def _range(tensor: Sparse, factors: Sequence[Array], mode: int) -> Array:
    xp, sketch = namespace(*factors), sparse_mttkrp(tensor, factors, mode)
    basis, _ = orthonormalise(sketch)
    noise = factors[mode][:, : sketch.shape[1] - basis.shape[1]] / sketch.shape[0] ** 0.5
    return xp.concat([basis, noise], axis=1)


@dataclass(frozen=True)
class CPSweeps:
    """Options of `CPALS`."""

    tol: float
    max_steps: int
    damping: float
    ridge: float


def sparse_als(tensor: Sparse, rank: int, start: str, options: CPSweeps, generator: Any) -> Fit[CP]:
    """Alternating least squares as `CPALS` does it."""
    tensor = prepared(tensor)
    whole, converged = norm(tensor.values), False
    trace: list[float] = []
    if whole == 0:
        return sparse_zero(tensor, rank)
    factors = sparse_start(tensor, rank, start, generator)
    while not converged and len(trace) < options.max_steps:
        ridge = options.ridge * (trace[-1] if trace else 1.0) ** 2
        factors, error = _sweep(tensor, balanced(factors), whole, options.damping, ridge)
        trace.append(relative(error, whole))
        converged = len(trace) > 1 and abs(trace[-2] - trace[-1]) <= options.tol * trace[-1]
        converged = converged or trace[-1] <= epsilon(tensor.values) ** 0.5
    value = CP(tuple(balanced(factors)))
    return Fit(value, relative(sparse_residual(tensor, value), whole), len(trace), converged, tuple(trace))


def _sweep(
    tensor: Sparse, factors: list[Array], whole: float, damping: float, ridge: float
) -> tuple[list[Array], float]:
    """Renew every factor once; also returns the error."""
    grams = [gram(f) for f in factors]
    projected = factors[-1]
    for k in range(tensor.ndim):
        projected = sparse_mttkrp(tensor, [conjugate(f) for f in factors], k)
        gamma = hadamard(grams[:k] + grams[k + 1 :], like=grams[k])
        factors[k] = _solved(gamma, projected, factors[k], damping, ridge)
        grams[k] = gram(factors[k])
    return factors, max(0.0, square_by_parts(projected, factors[-1], grams, whole)) ** 0.5


def _solved(gamma: Array, projected: Array, old: Array, damping: float, ridge: float) -> Array:
    xp = namespace(gamma)
    diagonal = xp.linalg.diagonal(gamma)
    step = damping * xp.mean(xp.abs(diagonal))
    eye = xp.eye(gamma.shape[0], dtype=gamma.dtype, device=device_of(gamma))
    return solve_psd(gamma + (step + ridge * diagonal) * eye, (projected + step * old).T).T


@dataclass(frozen=True)
class SparseSearch:
    """How `CPGN` searches: roughly, while a penalty is lowered, and to the end."""

    rough: GaussNewton
    last: GaussNewton
    explicit: int
    ridge: float


def sparse_gauss_newton(
    tensor: Sparse, rank: int, start: str, search: SparseSearch, generator: Any
) -> Fit[CP]:
    """Gauss–Newton steps as `CPGN` takes them, after one sweep of alternating least squares."""
    tensor = prepared(tensor)
    problem = SparseCPProblem(tensor, search.explicit)
    if problem.whole == 0:
        return sparse_zero(tensor, rank)
    factors, _ = _sweep(tensor, sparse_start(tensor, rank, start, generator), problem.whole, 0.0, 0.0)
    point, steps, values = tuple(factors), 0, list[float]()
    for penalty in penalties(problem, search.ridge):
        found = search.rough(ridged(problem, penalty), point)
        point, steps, values = found.point, steps + found.steps, [*values, *found.trace]
    found = search.last(problem.at, point)
    value = CP(tuple(balanced(found.point)))
    trace = tuple((2 * v) ** 0.5 / problem.whole for v in (*values, *found.trace))
    error = relative(sparse_residual(tensor, value), problem.whole)
    return Fit(value, error, steps + found.steps, found.converged, trace)


def sparse_zero(tensor: Sparse, rank: int) -> Fit[CP]:
    """The fit of a tensor without entries other than zero."""
    xp, values = namespace(tensor.values), tensor.values
    zeros = (xp.zeros((n, rank), dtype=values.dtype, device=device_of(values)) for n in tensor.shape)
    return Fit(CP(tuple(zeros)), 0.0, 0)


def prepared(tensor: Sparse) -> Sparse:
    """Each entry once, without derivatives."""
    return tensor.coalesced.map(constant)
