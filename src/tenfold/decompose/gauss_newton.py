"""Nonlinear least squares ½‖F(z)‖² over a tuple of arrays z, real or complex, by Gauss and Newton's method.

Steps stay where the model of the problem at hand can be trusted: within a radius, or by a damping.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from tenfold.core.arrays import epsilon
from tenfold.core.errors import OptionError
from tenfold.decompose.base import check_steps
from tenfold.decompose.local_problem import (
    At,
    Local,
    Minimum,
    Point,
    added,
    conjugate_gradients,
    dot,
    scaled,
    size,
)


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
