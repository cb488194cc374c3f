"""Numbers as a reader wants them: 1.23 M, 4.3 MB, 3.4 ms, 24.9 %, 2.1×. What is missing prints as "–"."""

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

MISSING = "–"
Digits = Callable[[float], str]


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to print: not `None`, NaN or infinite."""
    return value is not None and math.isfinite(value)


def count(value: float | None) -> str:
    """How many, to three digits; exact below a thousand.

    >>> count(1_234_567), count(999_999), count(640), count(None)
    ('1.23 M', '1.00 M', '640', '–')
    """
    return _prefixed(value, _three_digits, ("", "k", "M", "G", "T")) if known(value) else MISSING


def nbytes(value: float | None) -> str:
    """Bytes, in units of 1000 as the sizes of disks.

    >>> nbytes(4_300_000), nbytes(512)
    ('4.3 MB', '512 B')
    """
    return _prefixed(value, _one_decimal, ("B", "kB", "MB", "GB", "TB")) if known(value) else MISSING


def flops(value: float | None) -> str:
    """Floating-point operations, in units of 1000.

    >>> flops(1_234_567_890), flops(0)
    ('1.2 G', '0')
    """
    return _prefixed(value, _one_decimal, ("", "k", "M", "G", "T", "P")) if known(value) else MISSING


def seconds(value: float | None) -> str:
    """A time.

    >>> seconds(0.0034), seconds(0.9996), seconds(75), seconds(0)
    ('3.4 ms', '1.0 s', '75.0 s', '0 s')
    """
    if not known(value):
        return MISSING
    return _prefixed(value * 1e9, _one_decimal, ("ns", "µs", "ms", "s")) if value else "0 s"


def percent(fraction: float | None) -> str:
    """A fraction in per cent, with one decimal; small ones with two digits.

    >>> percent(0.249), percent(0.972), percent(1), percent(0.00042)
    ('24.9 %', '97.2 %', '100.0 %', '0.042 %')
    """
    if not known(fraction):
        return MISSING
    small = 0 < abs(fraction) < 0.00095
    return f"{fraction * 100:.2g} %" if small else f"{fraction * 100:.1f} %"


def times(factor: float | None) -> str:
    """A speed-up.

    >>> times(2.14), times(0.837), times(12.3), times(0.0034)
    ('2.1×', '0.84×', '12×', '0.0034×')
    """
    if not known(factor):
        return MISSING
    if factor < 0.095:
        return f"{factor:.2g}×"
    return f"{factor:.{0 if factor >= 9.95 else 1 if factor >= 0.995 else 2}f}×"


def points(difference: float | None) -> str:
    """A difference of two fractions in percentage points, with its sign.

    >>> points(-0.0123), points(0.002), points(-0.0001)
    ('−1.2', '+0.2', '±0.0')
    """
    if not known(difference):
        return MISSING
    size = f"{abs(difference) * 100:.1f}"
    sign = "±" if float(size) == 0 else "+" if difference > 0 else "−"
    return sign + size


def shape(sizes: Sequence[int]) -> str:
    """Sizes of the modes of a weight.

    >>> shape((64, 32, 3, 3))
    '64×32×3×3'
    """
    return "×".join(map(str, sizes)) or MISSING


def short(text: str) -> str:
    """The same number without the zeros that end its decimals, for the ticks of an axis.

    >>> short("1.00 M"), short("2.50 k"), short("100 kB")
    ('1 M', '2.5 k', '100 kB')
    """
    number, space, unit = text.partition(" ")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


def _prefixed(value: float, digits: Digits, units: Sequence[str]) -> str:
    """With the first unit that leaves less than a thousand; rounding counts: 999 999 is 1.00 M."""
    number = f"{value:.0f}" if value == round(value) else digits(value)
    for unit in units:
        if abs(float(number)) < 1000 or unit == units[-1]:
            break
        value /= 1000
        number = digits(value)
    return f"{number} {unit}".rstrip()


def _three_digits(value: float) -> str:
    return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}"


def _one_decimal(value: float) -> str:
    return f"{value:.{1 if abs(value) < 99.95 else 0}f}"
