"""Nonlinear least squares ½‖F(z)‖² over a tuple of arrays z, real or complex, by Gauss and Newton's method.

A problem is a function `at` from a point to its `Local`: the value there, the gradient Jᴴ F, and products
with the Gram matrix JᴴJ of the Jacobian. That is all; J itself is never formed. Complex points are taken as
pairs of real ones by the real part of the inner product, which changes nothing where F is analytic in z.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from tenfold.core.arrays import Array, epsilon, is_complex, namespace
from tenfold.core.errors import OptionError
from tenfold.decompose.base import check_steps, number

Point = tuple[Array, ...]


class Local(ABC):
    """A problem near a point z: f(z + p) ≈ f + Re⟨g, p⟩ + ½ ⟨p, JᴴJ p⟩.

    Values that are asked for twice should be cached (`functools.cached_property`): `value` is read for every
    point that is tried, the rest only for points that are accepted.
    """

    point: Point

    @property
    @abstractmethod
    def value(self) -> float:
        """½‖F(z)‖², accurate enough to see the progress of a step (mind the cancellation of expansions)."""

    @property
    @abstractmethod
    def gradient(self) -> Point:
        """Jᴴ F(z)."""

    @abstractmethod
    def gram(self, direction: Point) -> Point:
        """JᴴJ times a direction."""

    def precondition(self, residual: Point, shift: float) -> Point:
        """About (JᴴJ + shift I)⁻¹ times `residual`; must be Hermitian and positive definite."""
        return residual

    def solve(self, target: Point, shift: float) -> Point | None:
        """(JᴴJ + shift I)⁺ times `target`, for problems small enough; None asks for conjugate gradients."""
        return None

    def settled(self) -> "Local":
        """The same value at the best of the equivalent points, such as one with balanced columns."""
        return self


At = Callable[[Point], Local]


@dataclass(frozen=True)
class Minimum:
    """Where the search ended: `trace` holds the value after each accepted step, `steps` counts all tried."""

    local: Local
    steps: int
    converged: bool
    trace: tuple[float, ...]

    @property
    def point(self) -> Point:
        """The arrays z."""
        return self.local.point


@dataclass(frozen=True)
class GaussNewton:
    """Gauss–Newton steps in a trust region, each from a few preconditioned conjugate gradients.

    The dogleg goes from the minimum along -g towards the Gauss–Newton step until it meets the radius Δ. With
    ρ = actual / predicted decrease, a step with ρ > 0 is taken; ρ > ¾ widens Δ to 2‖p‖ at least, ρ < ¼ cuts
    it to ‖p‖/4. Δ begins with `radius` ‖z‖. With `damped`, the radius gives way to the damping of Levenberg
    and Marquardt, (JᴴJ + μ I) p = -g: slower near a regular minimum, sturdier where J loses rank, as for
    matrix multiplication tensors.

    Stops (`converged`) when a full step, or two in succession, lower the value by less than `tol` relative to
    it, when a step is shorter than `tol_step` relative to ‖z‖, or when the value or its gradient is zero to
    rounding.

    Cost of a step: a gradient, a value, and up to `cg_steps` products with JᴴJ.

    Source: Nocedal & Wright 2006, chapters 4 and 10; Sorber, Van Barel & De Lathauwer, SIAM J. Optim. 23(2),
    2013; damping as in Nielsen 1999.

    >>> import numpy as np
    >>> class Root(Local):
    ...     def __init__(self, point): self.point = point
    ...     value = property(lambda self: 0.5 * float((self.point[0] ** 2 - 2) ** 2))
    ...     gradient = property(lambda self: (2 * self.point[0] * (self.point[0] ** 2 - 2),))
    ...     def gram(self, direction): return (4 * self.point[0] ** 2 * direction[0],)
    >>> round(float(GaussNewton()(Root, (np.asarray(1.0),)).point[0]), 12)
    1.414213562373
    """

    max_steps: int = 500
    tol: float = 1e-8
    tol_step: float = 1e-10
    cg_steps: int = 15
    cg_tol: float = 1e-6
    radius: float = 0.3
    damped: bool = False

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        if min(self.tol, self.tol_step, self.cg_tol) < 0 or self.cg_steps < 1 or self.radius <= 0:
            raise OptionError(
                f"{self} has an option below its range.", "Give tolerances >= 0, cg_steps >= 1, radius > 0."
            )

    def __call__(self, at: At, start: Point) -> Minimum:
        """Minimise from `start`."""
        here = at(start).settled()
        trace: list[float] = []
        region = self._region(here)
        steps, converged = 0, self._vanishes(here, here.value)
        first, slow = here.value, False
        while not converged and steps < self.max_steps:
            step, predicted = region.step()
            there = at(added(here.point, step, 1.0))
            steps += 1
            decrease = here.value - there.value
            full = region.judge(decrease / predicted if predicted > 0 else -1.0, step)
            length = size(step) / max(size(here.point), 1e-300)
            converged = length <= self.tol_step or predicted <= epsilon(step[0]) * here.value
            if decrease > 0:
                was_slow, slow = slow, decrease <= self.tol * here.value
                converged = converged or (slow and (full or was_slow))
                here = there.settled()
                del there, step  # which hold memory that the next step needs
                trace.append(here.value)
                region.move(here)
                converged = converged or self._vanishes(here, first)
        return Minimum(here, steps, converged, tuple(trace))

    def _region(self, here: Local) -> "Region":
        kind = Damped if self.damped else Dogleg
        return kind(here, self)

    def _vanishes(self, here: Local, first: float) -> bool:
        """Whether nothing is left to gain: a value, or a gradient, that is zero to rounding."""
        tiny = epsilon(here.point[0])
        return here.value <= (4 * tiny) ** 2 * first or size(here.gradient) == 0


class Region(ABC):
    """How far a step may go: proposes one at a time, learns from how well it was predicted."""

    def __init__(self, here: Local, options: GaussNewton) -> None:
        self.options = options
        self.move(here)

    @abstractmethod
    def move(self, here: Local) -> None:
        """Go to a new point."""

    @abstractmethod
    def step(self) -> tuple[Point, float]:
        """A step, and by how much the model lowers the value along it."""

    @abstractmethod
    def judge(self, ratio: float, step: Point) -> bool:
        """Take note of actual / predicted decrease; says whether the step was as long as the model wished."""


class Dogleg(Region):
    """A ball of radius Δ (Powell 1970)."""

    cauchy: Point
    newton: Point

    def __init__(self, here: Local, options: GaussNewton) -> None:
        super().__init__(here, options)
        self.radius = options.radius * max(size(here.point), size(self.cauchy))

    def move(self, here: Local) -> None:
        """Find both legs."""
        self.here, self.cauchy, self.newton = here, (), ()
        g = here.gradient
        slope, curvature = dot(g, g), dot(g, here.gram(g))
        self.cauchy = scaled(g, -slope / curvature if curvature > 0 else -1.0)
        self.newton = newton_step(here, 0.0, self.options)

    def step(self) -> tuple[Point, float]:
        """Along the dogleg to the edge of the region, or to its end."""
        step = dogleg(self.cauchy, self.newton, self.radius)
        return step, predicted_decrease(self.here, step)

    def judge(self, ratio: float, step: Point) -> bool:
        """Widen or narrow the radius."""
        length = size(step)
        full = length >= (1 - 1e-9) * size(self.newton)
        if ratio > 0.75:
            self.radius = max(self.radius, 2 * length)
        elif not ratio >= 0.25:
            self.radius = length / 4
        return full


class Damped(Region):
    """A shift μ of JᴴJ, from 1e-3 of its size along the gradient."""

    def __init__(self, here: Local, options: GaussNewton) -> None:
        g = here.gradient
        curvature = size(here.gram(g)) / max(size(g), 1e-300)
        self.shift, self.growth = 1e-3 * max(curvature, epsilon(g[0])), 2.0
        super().__init__(here, options)

    def move(self, here: Local) -> None:
        """The step is found when it is asked for, because μ changes at every failure too."""
        self.here = here

    def step(self) -> tuple[Point, float]:
        """The damped Gauss–Newton step."""
        step = newton_step(self.here, self.shift, self.options)
        return step, predicted_decrease(self.here, step)

    def judge(self, ratio: float, step: Point) -> bool:
        """Nielsen's rule: μ falls by up to 3 after good steps, and rises by 2, 4, 8, … at failures."""
        if ratio > 0:
            self.shift *= max(1 / 3, 1 - (2 * min(ratio, 1.0) - 1) ** 3)
            self.growth = 2.0
        else:
            self.shift *= self.growth
            self.growth *= 2
        return ratio > 0.25


def newton_step(here: Local, shift: float, options: GaussNewton) -> Point:
    """(JᴴJ + shift I)⁻¹ (-g), directly where the problem offers that."""
    target = scaled(here.gradient, -1.0)
    step = here.solve(target, shift)
    if step is None:
        return conjugate_gradients(here, target, shift, options.cg_steps, options.cg_tol)
    return step


def conjugate_gradients(here: Local, target: Point, shift: float, steps: int, tol: float) -> Point:
    """About (JᴴJ + shift I)⁻¹ target, by preconditioned conjugate gradients from zero.

    Stops at a residual of `tol` relative to the target, after `steps`, and where the curvature is not
    positive. From zero it never leaves the range of Jᴴ, so that a singular JᴴJ does no harm.
    """
    solution = scaled(target, 0.0)
    residual, search, before = target, solution, math.inf
    goal = tol * size(target)
    for _ in range(steps):
        if size(residual) <= goal:
            break
        better = here.precondition(residual, shift)
        weight = dot(residual, better)
        search = added(better, search, weight / before)
        image = here.gram(search)
        image = added(image, search, shift) if shift else image
        curvature = dot(search, image)
        if not curvature > 0 or not weight > 0:
            break
        length = weight / curvature
        solution = added(solution, search, length)
        residual, before = added(residual, image, -length), weight
    return solution


def dogleg(cauchy: Point, newton: Point, radius: float) -> Point:
    """The point of the path 0 → cauchy → newton that is `radius` away from 0, or its end.

    >>> import numpy as np
    >>> dogleg((np.array([1.0, 0.0]),), (np.array([1.0, 1.0]),), 1.25)[0]
    array([1.  , 0.75])
    """
    if size(newton) <= radius:
        return newton
    short = size(cauchy)
    if short >= radius:
        return scaled(cauchy, radius / short)
    leg = added(newton, cauchy, -1.0)
    a, b, c = dot(leg, leg), dot(cauchy, leg), short**2 - radius**2
    root = math.sqrt(max(b**2 - a * c, 0.0))
    t = -c / (b + root) if b > 0 else (root - b) / a
    return added(cauchy, leg, t)


def predicted_decrease(here: Local, step: Point) -> float:
    """-Re⟨g, p⟩ - ½ ⟨p, JᴴJ p⟩."""
    return -dot(here.gradient, step) - dot(step, here.gram(step)) / 2


def dot(a: Point, b: Point) -> float:
    """Re⟨a, b⟩."""
    return sum(_dot(x, y) for x, y in zip(a, b, strict=True))


def _dot(x: Array, y: Array) -> float:
    xp = namespace(x, y)
    return number(xp.sum((xp.conj(x) if is_complex(x) else x) * y))


def size(a: Point) -> float:
    """‖a‖."""
    return math.sqrt(dot(a, a))


def scaled(a: Point, factor: float) -> Point:
    """factor a."""
    return tuple(factor * x for x in a)


def added(a: Point, b: Point, factor: float) -> Point:
    """a + factor b."""
    return tuple(x + factor * y for x, y in zip(a, b, strict=True))
