"""The axes of a plot: from a number to a place between 0 and 100 per cent, and where the ticks stand."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    """A value that an axis marks; a minor one loses its label where there is little room."""

    value: float
    minor: bool = False


@dataclass(frozen=True)
class Axis:
    """The range of values that a plot shows, linear or logarithmic.

    >>> Axis(1.0, 100.0, log=True).place(10.0)
    50.0
    """

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, in per cent of the axis."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return round(100 * (value - low) / (high - low), 2)

    def ticks(self) -> tuple[Tick, ...]:
        """Round values in the range, about five or so.

        >>> [tick.value for tick in Axis(0.0, 1.0).ticks()]
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> [tick.value for tick in Axis(80.0, 9000.0, log=True).ticks() if not tick.minor]
        [100.0, 1000.0]
        """
        ticks = _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)
        return ticks if len(ticks) > 1 else _linear_ticks(self.low, self.high)


def sizes_axis(values: Iterable[float], log: bool) -> Axis:
    """The axis of sizes: from zero if linear, and if logarithmic with room at both ends. Values are positive.

    >>> sizes_axis([10.0, 100.0], log=False)
    Axis(low=0.0, high=105.0, log=False)
    """
    values = list(values)
    if not log:
        return Axis(0.0, max(values) * 1.05)
    room = max((max(values) / min(values)) ** 0.06, 1.15)
    return Axis(min(values) / room, max(values) * room, log=True)


def accuracy_axis(values: Iterable[float]) -> Axis:
    """The axis of accuracies, with room at both ends, and at least one percentage point.

    >>> axis = accuracy_axis([0.9, 0.95])
    >>> round(axis.low, 3), round(axis.high, 3)
    (0.895, 0.955)
    """
    values = list(values)
    room = max(0.1 * (max(values) - min(values)), 0.005)
    return Axis(min(values) - room, max(values) + room)


def _linear_ticks(low: float, high: float) -> tuple[Tick, ...]:
    step = _round_step((high - low) / 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(Tick(float(f"{step * n:.12g}")) for n in range(first, last + 1))


def _round_step(width: float) -> float:
    """1, 2, 5 or 10 times a power of ten: the smallest that is at least 0.85 of the width."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.85 * width)


def _log_ticks(low: float, high: float) -> tuple[Tick, ...]:
    """1, 2 and 5 times the powers of ten; the powers alone when there are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 3000 else (1,)
    ticks = [Tick(float(f"{factor}e{power}"), factor != 1) for power in powers for factor in factors]
    inside = tuple(tick for tick in ticks if low <= tick.value <= high)
    crowded = len(inside) > 5 and sum(not tick.minor for tick in inside) > 1
    return tuple(Tick(tick.value, tick.minor and crowded) for tick in inside)
