"""What a method may ask of a nonlinear least-squares problem ½‖F(z)‖² over a tuple of arrays z.

A problem is a function `at` from a point to its `Local`: the value there, the gradient Jᴴ F, and products
with the Gram matrix JᴴJ of the Jacobian. That is all; J itself is never formed. Complex points are taken as
pairs of real ones by the real part of the inner product, which changes nothing where F is analytic in z.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from tenfold.core.arrays import Array, conjugate, namespace
from tenfold.decompose.base import number

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


def dot(a: Point, b: Point) -> float:
    """Re⟨a, b⟩."""
    return sum(inner(x, y) for x, y in zip(a, b, strict=True))


def inner(x: Array, y: Array) -> float:
    """Re⟨x, y⟩ of two arrays."""
    xp = namespace(x, y)
    return number(xp.sum(conjugate(x) * y))


def size(a: Point) -> float:
    """‖a‖."""
    return math.sqrt(dot(a, a))


def scaled(a: Point, factor: float) -> Point:
    """factor a."""
    return tuple(factor * x for x in a)


def added(a: Point, b: Point, factor: float) -> Point:
    """a + factor b."""
    return tuple(x + factor * y for x, y in zip(a, b, strict=True))
