"""Least squares over known entries in any format, by random starts and a ridge that falls with the error."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Generic, TypeVar

from tenfold.core.arrays import Array, constant, epsilon, namespace
from tenfold.core.errors import OptionError
from tenfold.core.incomplete import Incomplete
from tenfold.core.network import Network
from tenfold.core.noise import normal
from tenfold.decompose.base import Fit, Method, check_steps, norm
from tenfold.decompose.entries.observed import Problem
from tenfold.decompose.entries.observed_gradient import attached
from tenfold.decompose.gauss_newton import GaussNewton
from tenfold.decompose.local_problem import Point, dot
from tenfold.decompose.networks.gauge import balanced
from tenfold.formats import Format

F = TypeVar("F", bound=Format)

INNER = 10
"""Most Gauss-Newton steps before the ridge is set anew."""

ROUGH = 1e-2
"""The relative change of the error at which starts are compared, and a lower ridge is tried."""

TRIAL = 10
"""Most steps of a start before it is compared, and of a trial with a lower ridge."""

RIDGES = (1.0, 0.3, 0.1)
"""With what share of the ridge starts are made, in turn: the most sturdy one can draw everything to zero."""

LOWER = (1e-1, 1e-1, 1e-1, 1e-1)
"""By what the ridge of the best start is lowered in turn."""

MARGIN = 0.85
"""How far below the error that noise would leave a lower ridge must come."""

FLOOR = 100
"""Times eps: an error at which all entries are met to rounding."""


@dataclass(frozen=True)
class Completing(Method[F], Generic[F]):
    """Base class of the methods for incomplete tensors.

    Minimises, over the factors z of a network M and the known entries Ω,

        ½ Σ_Ω |M - T|² + ½ λ ‖z‖²,     λ = ridge · m · ε² ‖T‖² / ‖z‖² · min(1, unknowns / entries)

    by Gauss-Newton steps on all factors at once. m is the share of the entries that is missing, ε the
    relative error so far: λ is what a normal prior on the factors takes for noise of that size, large at
    first and vanishing where the tensor has the rank. Without it, factors grow where nothing is known, and
    most random starts fail when few entries are known. A `ridge` above about 3 draws everything to zero.

    Of at most `restarts` random starts, made with 1, 0.3 and 0.1 of the ridge in turn, the best is kept;
    there are no more once one fits all entries to rounding. The ridge is lowered further as long as the error
    falls by more than it would if what is left were noise. With noise and fewer than ten entries for each
    unknown, half of the starts and more end in local minima: take 10 or 20.

    Stops (`converged`) when a step, which is up to ten Gauss-Newton steps at one λ, changes the error by less
    than `tol` relative to it. `Fit.error` and its `trace` are over the known entries: ‖M - T‖_Ω / ‖T‖_Ω.

    Steps solve (JᴴJ + λ I) p = -g by up to `cg_steps` conjugate gradients, with products that only gather
    rows and add them up, and with the inverse of the block of every row of every factor as preconditioner.
    Cost of a product: O(entries · Σ bonds of each factor); memory: as much, twice. Derivatives with respect
    to the entries are those of the minimum, with JᴴJ for the Hessian: right where the fit is close.

    A tensor that is not incomplete is taken as one whose entries are all known.

    Raises:
        WeightError: if a slice has no known entry; it names the mode and the index.
    """

    accepts: ClassVar = (Incomplete,)
    levels: ClassVar = True
    tol: float = 1e-5
    max_steps: int = 50
    restarts: int = 5
    ridge: float = 1.0
    cg_steps: int = 20

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        if min(self.tol, self.ridge) < 0 or min(self.restarts, self.cg_steps) < 1:
            raise OptionError(
                f"{self} has an option below its range.",
                "Give tol and ridge of 0 or more, restarts and cg_steps of 1 or more.",
            )

    def _fit(self, tensor: Array | Incomplete, network: Network, generator: Any) -> Fit[F]:
        known = tensor if isinstance(tensor, Incomplete) else everything(tensor)
        known.check_known()
        fixed = known.map(constant)
        problem = Problem(fixed, network)
        best = self._search(problem, generator)
        z = attached(problem, best.point, known.values)
        factors = balanced(network, problem.folded(z))
        return Fit(
            self._made(network, factors), best.error, len(best.trace), best.converged, tuple(best.trace)
        )

    @abstractmethod
    def _made(self, network: Network, factors: tuple[Array, ...]) -> F:
        """The format over factors in the order of the network."""

    def _search(self, problem: Problem, generator: Any) -> "Found":
        """The best of several starts, refined."""
        whole = norm(problem.entries.values)
        if not whole:
            return Found(tuple(0 * z for z in problem.flat(drawn(problem, whole, generator))), (0.0,), True)
        best = self._started(problem, RIDGES[0], whole, generator)
        for k in range(1, self.restarts):
            if not self._unfit(problem, best):
                break
            found = self._started(problem, RIDGES[k % len(RIDGES)], whole, generator)
            best = found if self._better(problem, found, best) else best
        best = self._lowered(problem, best, whole, generator)
        return self._settled(problem, best, self.tol, self.max_steps, whole)

    def _started(self, problem: Problem, share: float, whole: float, generator: Any) -> "Found":
        """Where a random start leads, roughly, with a share of the ridge."""
        start = Found(problem.flat(drawn(problem, whole, generator)), (), False, share)
        return self._settled(problem, start, ROUGH, min(TRIAL, self.max_steps), whole)

    def _lowered(self, problem: Problem, best: "Found", whole: float, generator: Any) -> "Found":
        """Lower the ridge as long as that pays."""
        for share in LOWER if self.ridge else ():
            if not self._unfit(problem, best):
                break
            shaken = replace(best, point=perturbed(best.point, generator), ridge=best.ridge * share)
            found = self._settled(problem, shaken, ROUGH, min(len(best.trace) + TRIAL, self.max_steps), whole)
            if not self._better(problem, found, best):
                break
            best = found
        return best

    def _better(self, problem: Problem, found: "Found", best: "Found") -> bool:
        """Whether the error is lower, and by more than a lower ridge alone would make it if it were noise.

        Of noise, a fit with as many unknowns takes their share of the square, if no ridge holds it back.
        """
        noise = MARGIN * max(0.25, 1 - problem.share) ** 0.5
        if found.ridge == best.ridge:
            return found.error < best.error
        if found.ridge < best.ridge:
            return found.error < noise * best.error
        return noise * found.error < best.error

    def _unfit(self, problem: Problem, found: "Found") -> bool:
        """Whether the entries are not met to rounding."""
        return found.error > FLOOR * epsilon(problem.entries.values)

    def _settled(self, problem: Problem, start: "Found", tol: float, limit: int, whole: float) -> "Found":
        """On from `start` until the error does not change by more than `tol` of itself."""
        point, trace, converged = start.point, list(start.trace), False
        search = GaussNewton(max_steps=INNER, tol=1e-3, cg_steps=self.cg_steps)
        before = trace[-1] if trace else 1.0
        while not converged and len(trace) < limit:
            error = trace[-1] if trace else 1.0
            found = search(
                problem.with_ridge(start.ridge * self._strength(problem, point, error, whole)), point
            )
            point = found.point
            trace.append(found.local.misfit / whole)  # type: ignore[attr-defined]
            converged = abs(before - trace[-1]) <= tol * trace[-1]
            converged = converged or trace[-1] <= 4 * epsilon(problem.entries.values)
            before = trace[-1]
        return replace(start, point=point, trace=tuple(trace), converged=converged)

    def _strength(self, problem: Problem, point: Point, error: float, whole: float) -> float:
        """λ at a relative error."""
        missing = 1 - problem.entries.density
        return self.ridge * missing * problem.share * (error * whole) ** 2 / max(dot(point, point), 1e-300)


@dataclass(frozen=True)
class Found:
    """Where a start has led."""

    point: Point
    trace: tuple[float, ...]
    converged: bool
    ridge: float = 1.0

    @property
    def error(self) -> float:
        """The relative error over the known entries."""
        return self.trace[-1]


def everything(tensor: Array) -> Incomplete:
    """A tensor as an incomplete one of which nothing is missing."""
    return Incomplete.from_mask(tensor, namespace(tensor).ones_like(tensor, dtype=namespace(tensor).bool))


def drawn(problem: Problem, whole: float, generator: Any) -> tuple[Array, ...]:
    """Normal factors such that the entries of the network are as large as the known ones."""
    network, values = problem.network, problem.entries.values
    variance = whole**2 / problem.entries.nnz / network.product(network.bonds)
    scale = variance ** (0.5 / len(network.factors))
    return tuple(scale * normal(shape, like=values, generator=generator) for shape in network.shapes)


def perturbed(point: Point, generator: Any) -> Point:
    """The point and a little noise, which wakes components that a ridge has put to rest."""
    return tuple(
        z + 1e-2 * norm(z) / prod(z.shape) ** 0.5 * normal(z.shape, like=z, generator=generator)
        for z in point
    )
