"""A scalar spread over the factors of a tensor."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.core.arrays import (
    Array,
    cast,
    cast_like,
    compute_dtype,
    constant,
    is_complex,
    is_floating,
    is_traced,
    namespace,
)
from tenfold.core.errors import OptionError

Scalar = int | float | complex | Array
"""A number of Python or NumPy, or an array without axes."""


def is_scalar(x: Any) -> bool:
    """Whether `x` is a number, or an array without axes."""
    return isinstance(x, int | float | complex) or getattr(x, "ndim", None) == 0


def scaled(factors: Sequence[Array], scalar: Scalar) -> list[Array]:
    """The factors of the tensor times a scalar, their dtype kept; a complex scalar makes all of them complex.

    The binary exponent of the scalar is spread evenly, so that no factor overflows before the others, and the
    rest goes to the first: these are powers of two, so that nothing is rounded but that one product. The
    gradient in a scalar that is an array is right, at zero too.

    >>> [float(f) for f in scaled([np.ones(()), np.ones(()), np.ones(())], 96.0)]
    [6.0, 4.0, 4.0]
    """
    if isinstance(scalar, np.generic | np.ndarray):
        scalar = scalar.item()
    shares = _of_number if isinstance(scalar, int | float | complex) else _of_array
    first, *rest = shares(scalar, len(factors), factors[0])
    lead = factors[0] * first
    others = [f * share for f, share in zip(factors[1:], rest, strict=True)]
    return [lead, *(cast(f, lead.dtype) if is_complex(lead) else f for f in others)]


def _of_number(scalar: complex, count: int, _: Array) -> list[complex]:
    size = abs(scalar)
    if not math.isfinite(size):
        raise OptionError(f"a tensor cannot be multiplied by {scalar}.", "Give a finite number.")
    exponent = math.frexp(size)[1] - 1 if size else 0
    powers = [2.0 ** ((exponent + k) // count) for k in range(count)]
    return [scalar / 2.0**exponent * powers[0], *powers[1:]]


def _of_array(scalar: Array, count: int, factor: Array) -> list[Array]:
    xp = namespace(scalar, factor)
    if not is_complex(scalar) or is_complex(factor):
        scalar = cast(scalar, factor.dtype if is_floating(factor) else scalar.dtype)
    size = xp.abs(scalar)
    exponent = xp.floor(xp.log2(xp.where(size > 0, size, xp.ones_like(size))))
    powers = [2.0 ** xp.floor((exponent + k) / count) for k in range(count)]
    return [scalar / 2.0**exponent * powers[0], *powers[1:]]


def narrowed(factors: Sequence[Array], like: Array) -> list[Array]:
    """The factors in the dtype of `like`; the norm is spread over all where one holds numbers beyond it.

    That is the core of an orthogonal decomposition in half precision, which has the norm of the tensor.
    Factors are then multiplied by powers of two that make one, so that their largest entries are alike.
    Traced arrays are not looked at.

    >>> factors = narrowed([np.array([2.0**20]), np.ones(1)], np.zeros(1, np.float16))
    >>> [float(f[0]) for f in factors]
    [1024.0, 1024.0]
    """
    if _overflow(factors, like):
        factors = [f * 2.0**power for f, power in zip(factors, _levelling(factors), strict=True)]
    return [cast_like(f, like) for f in factors]


def _overflow(factors: Sequence[Array], like: Array) -> bool:
    """Whether the narrower dtype of `like` has no room for an entry."""
    if like.dtype == compute_dtype(like) or not is_floating(like) or is_traced(like, *factors):
        return False
    most = float(namespace(like).finfo(like.dtype).max)
    return any(_largest(f) > most for f in factors)


def _largest(factor: Array) -> float:
    xp = namespace(factor)
    return float(constant(xp.max(xp.abs(factor)))) if math.prod(factor.shape) else 0.0


def _levelling(factors: Sequence[Array]) -> list[int]:
    """Powers of two, which add up to 0, that bring the largest entries of all factors together."""
    exponents = [math.frexp(_largest(f))[1] for f in factors]
    return [(sum(exponents) + k) // len(exponents) - e for k, e in enumerate(exponents)]
