"""Minima of smooth functions of a tuple of arrays, by limited-memory BFGS with a strong Wolfe search."""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from tenfold.core.arrays import Array, epsilon, namespace
from tenfold.core.errors import OptionError
from tenfold.decompose.base import check_steps, norm
from tenfold.decompose.local_problem import At, Local, Minimum, Point, added, dot, inner, size

SEARCH_STEPS = 25
"""Most values for one line search."""


class Pair(NamedTuple):
    """A change of the point, that of the gradient, both as vectors, and 1 / ⟨s, y⟩."""

    s: Array
    y: Array
    rho: float


@dataclass(frozen=True)
class LBFGS:
    """Quasi-Newton steps from the last `memory` changes of point and gradient.

    A step p = -H g takes H from the pairs s = z - z', y = g - g' by the two-loop recursion, from
    ⟨s, y⟩ / ⟨y, P y⟩ times P = `precondition` on, renewed every `memory` steps, and goes to a point with

        f(z + a p) <= f(z) + 1e-4 a ⟨g, p⟩     and     |⟨g(z + a p), p⟩| <= 0.9 |⟨g, p⟩|

    Stops (`converged`) when a step lowers the value by less than `tol` relative to it, when the value or its
    gradient is zero to rounding, or where no longer step lowers the value.

    Source: Liu & Nocedal, Mathematical Programming 45, 1989; Nocedal & Wright 2006, algorithms 3.5, 3.6, 7.4.

    >>> import numpy as np
    >>> class Root(Local):
    ...     def __init__(self, point): self.point = point
    ...     value = property(lambda self: 0.5 * float((self.point[0] ** 2 - 2) ** 2))
    ...     gradient = property(lambda self: (2 * self.point[0] * (self.point[0] ** 2 - 2),))
    ...     def gram(self, direction): return direction
    >>> round(float(LBFGS(tol=1e-14)(Root, (np.asarray(1.0),)).point[0]), 8)
    1.41421356
    """

    max_steps: int = 500
    tol: float = 1e-8
    memory: int = 20

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        if self.tol < 0 or self.memory < 1:
            raise OptionError(f"{self} has an option below its range.", "Give tol >= 0 and memory >= 1.")

    def __call__(self, at: At, start: Point) -> Minimum:
        """Minimise from `start`."""
        here = near = at(start)
        tiny, first = epsilon(start[0]), here.value
        pairs: list[Pair] = []
        trace: list[float] = []
        converged = vanishes(here, first, tiny)
        while not converged and len(trace) < self.max_steps:
            near = here if len(trace) % self.memory == 0 else near
            there, used = self._next(at, here, pairs, near)
            if there is None:
                converged = True
                break
            pairs = remembered(used, here, there)[-self.memory :]
            decrease, here = here.value - there.value, there
            trace.append(here.value)
            converged = decrease <= self.tol * here.value or vanishes(here, first, tiny)
        return Minimum(here, len(trace), converged, tuple(trace))

    def _next(self, at: At, here: Local, pairs: list[Pair], near: Local) -> tuple[Local | None, list[Pair]]:
        """The next point, and the pairs that led to it: none where only the gradient does."""
        if pairs:
            step = direction(here, pairs, near)
            there = wolfe(at, here, step, 1.0) if dot(here.gradient, step) < 0 else None
            if there is not None:
                return there, pairs
        step = direction(here, [], near)
        return wolfe(at, here, step, first_length(here, step)), []


def vanishes(here: Local, first: float, tiny: float) -> bool:
    """Whether nothing is left to gain."""
    return here.value <= (4 * tiny) ** 2 * first or size(here.gradient) == 0


def remembered(pairs: list[Pair], here: Local, there: Local) -> list[Pair]:
    """The pairs with the latest one, where the curvature along it is positive."""
    s = joined(there.point) - joined(here.point)
    y = joined(there.gradient) - joined(here.gradient)
    curvature = inner(s, y)
    return [*pairs, Pair(s, y, 1 / curvature)] if curvature > 1e-12 * norm(s) * norm(y) else pairs


def direction(here: Local, pairs: list[Pair], near: Local) -> Point:
    """-H g by the two-loop recursion, with the preconditioner of a point nearby."""

    def start(x: Array) -> Array:
        return joined(near.precondition(parted(x, here.point), 0.0))

    q, weights = joined(here.gradient), []
    for pair in reversed(pairs):
        weights.append(pair.rho * inner(pair.s, q))
        q = q - weights[-1] * pair.y
    q = start(q)
    if pairs:
        last = pairs[-1]
        q = q * (1 / (last.rho * inner(last.y, start(last.y))))
    for pair, weight in zip(pairs, reversed(weights), strict=True):
        q = q + (weight - pair.rho * inner(pair.y, q)) * pair.s
    return parted(-q, here.point)


def joined(point: Point) -> Array:
    """All entries as one vector."""
    xp = namespace(*point)
    return xp.concat([xp.reshape(x, (-1,)) for x in point])


def parted(vector: Array, like: Point) -> Point:
    """The inverse of `joined`, in the shapes of `like`."""
    xp, found, start = namespace(vector), [], 0
    for x in like:
        count = prod(x.shape)
        found.append(xp.reshape(vector[start : start + count], tuple(x.shape)))
        start += count
    return tuple(found)


def first_length(here: Local, step: Point) -> float:
    """A first step no longer than a tenth of the point."""
    return min(1.0, 0.1 * max(size(here.point), 1e-3) / max(size(step), 1e-300))


class Trial(NamedTuple):
    """A point of a line search: how far, the value there, the slope there."""

    length: float
    value: float
    slope: float
    local: Local


def wolfe(at: At, here: Local, step: Point, length: float) -> Local | None:
    """A point along `step` that obeys the strong Wolfe conditions, or the lowest one met; None if it is here.

    Doubles the length until the minimum is bracketed, then shrinks the bracket by cubic interpolation.
    """
    zero = Trial(0.0, here.value, dot(here.gradient, step), here)
    low, high, best = zero, None, zero
    for _ in range(SEARCH_STEPS):
        local = at(added(here.point, step, length))
        now = Trial(length, local.value, dot(local.gradient, step), local)
        best = min(best, now, key=lambda t: t.value)
        enough = now.value <= zero.value + 1e-4 * now.length * zero.slope and now.value < low.value
        if enough and abs(now.slope) <= -0.9 * zero.slope:
            return now.local
        low, high = shrunk(low, high, now, enough)
        if high is not None and abs(high.length - low.length) <= 1e-12 * max(high.length, low.length):
            break
        length = 2 * now.length if high is None else between(low, high)
    return best.local if best.value < zero.value else None


def shrunk(low: Trial, high: Trial | None, now: Trial, enough: bool) -> tuple[Trial, Trial | None]:
    """The bracket with a new point: `low` is the lowest point yet, and its slope points towards `high`."""
    if not enough:
        return low, now
    towards = high.length - low.length if high is not None else 1.0
    return now, (low if now.slope * towards >= 0 else high)


def between(low: Trial, high: Trial) -> float:
    """The minimum of the cubic through two values and slopes, kept away from the ends.

    >>> at = lambda x: Trial(x, (x - 1) ** 2, 2 * (x - 1), None)
    >>> between(at(0.0), at(3.0))
    1.0
    """
    a, b = low.length, high.length
    d = low.slope + high.slope - 3 * (low.value - high.value) / (a - b)
    inside = d * d - low.slope * high.slope
    middle = (a + b) / 2
    if not inside >= 0:
        return middle
    root = inside**0.5 if b > a else -(inside**0.5)
    bottom = high.slope - low.slope + 2 * root
    guess = b - (b - a) * (high.slope + root - d) / bottom if bottom else middle
    edge = 0.1 * abs(b - a)
    return guess if min(a, b) + edge <= guess <= max(a, b) - edge else middle
