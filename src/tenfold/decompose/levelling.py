"""Tensors whose norm is brought near one, for algorithms that take powers of it."""

from math import frexp
from typing import TypeVar

from tenfold.core.arrays import Array, is_traced, namespace
from tenfold.core.entries import Entries
from tenfold.core.pieces import frobenius

T = TypeVar("T", Array, Entries)
POWER = 5
"""Iterations multiply gradients of the squared error: up to the fourth power of the norm, and some room."""


def exponent_of(tensor: Array | Entries) -> int:
    """The k of the power 2ᵏ to divide a tensor by; 0 where the fifth power of its norm has room in its dtype.

    Traced arrays are not looked at.

    >>> import numpy as np
    >>> exponent_of(np.ones(4)), exponent_of(np.full(4, 2.0**-300)), exponent_of(np.zeros(4))
    (0, -299, 0)
    """
    values = tensor.values if isinstance(tensor, Entries) else tensor
    if is_traced(values):
        return 0
    limits = namespace(values).finfo(values.dtype)
    exponent, room = frexp(frobenius(values))[1] - 1, frexp(float(limits.max))[1]
    return exponent if POWER * abs(exponent) > room else 0


def levelled(tensor: T, exponent: int) -> T:
    """The tensor divided by 2^exponent, in two steps, as the power alone may be beyond the dtype."""
    if not exponent:
        return tensor
    first = exponent // 2

    def divided(values: Array) -> Array:
        return values * 2.0**-first * 2.0 ** (first - exponent)

    return tensor.map(divided) if isinstance(tensor, Entries) else divided(tensor)
