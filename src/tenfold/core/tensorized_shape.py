"""Sizes of rows and columns as products of as many nearly equal numbers."""

import math
from functools import lru_cache

from tenfold.core.errors import OptionError

Sizes = tuple[int, ...]


def get_tensorized_shape(
    in_features: int, out_features: int, order: int | None = None, min_dim: int = 2, pad: bool = False
) -> tuple[Sizes, Sizes]:
    """Both sizes as products of `order` whole numbers of at least `min_dim`, as equal as can be.

    Those of the inputs rise and those of the outputs fall, so that their products, the sizes of the modes of
    a TT-matrix, are as equal as can be. Without an order it is the largest that both sizes allow. Order 1 is
    always served, by the sizes themselves. Primes do not split: with `pad`, sizes are raised to the next that
    splits into numbers of which none is more than twice another, and their products are larger then.

    Raises:
        OptionError: if a size does not split so, or an option is out of range.

    >>> get_tensorized_shape(768, 3072, 3)
    ((8, 8, 12), (16, 16, 12))
    >>> get_tensorized_shape(48, 64)
    ((2, 2, 2, 2, 3), (4, 2, 2, 2, 2))
    >>> get_tensorized_shape(1009, 1024, 3, pad=True)
    ((8, 8, 16), (16, 8, 8))
    """
    if min(in_features, out_features) < 1 or min_dim < 2 or (order is not None and order < 1):
        raise OptionError(
            f"sizes {in_features}, {out_features}, order {order} and min_dim {min_dim} came.",
            "Give sizes and an order of 1 or more, and a min_dim of 2 or more.",
        )
    sizes = (in_features, out_features)
    if order is None:
        order = min(_most(n, min_dim, pad) for n in sizes)
    first, second = (padded(n, order, min_dim) if pad else split(n, order, min_dim) for n in sizes)
    return first, second[::-1]


def _most(n: int, min_dim: int, pad: bool) -> int:
    """The largest number of factors that `n`, or what it is padded to, has."""
    bound = max(1, int(math.log(n, min_dim) + 1e-9))
    return bound if pad else max(k for k in range(1, bound + 1) if k == 1 or _best(n, k, min_dim))


def split(n: int, order: int, min_dim: int = 2) -> Sizes:
    """`n` as a product of `order` rising numbers of at least `min_dim` whose sum is as small as can be.

    Of numbers with a given product, equal ones have the smallest sum.

    Raises:
        OptionError: if there are no such numbers.

    >>> split(768, 3), split(36, 2), split(1000, 3, min_dim=4)
    ((8, 8, 12), (6, 6), (10, 10, 10))
    """
    found = (n,) if order == 1 else _best(n, order, min_dim)
    if not found:
        raise OptionError(
            f"{n} is no product of {order} numbers of at least {min_dim}.",
            f"Give a lower order, or pad it: {math.prod(padded(n, order, min_dim))} is.",
        )
    return found


def padded(n: int, order: int, min_dim: int = 2) -> Sizes:
    """The numbers for `n`, or for the next larger one that is a product of nearly equal ones.

    >>> padded(1009, 2), padded(50257, 3), padded(7, 1)
    ((23, 44), (27, 38, 49), (7,))
    """
    if order == 1:
        return (n,)
    n = max(n, min_dim**order)
    while not (found := _best(n, order, min_dim)) or found[-1] > 2 * found[0]:
        n += 1
    return found


@lru_cache(maxsize=1 << 16)
def _best(n: int, order: int, low: int) -> Sizes:
    """The product of so many rising numbers from `low` on with the smallest sum; empty if there is none."""
    if order == 1:
        return (n,) if n >= low else ()
    best: Sizes = ()
    for d in _divisors(n):
        if d < low or d**order > n:
            continue
        rest = _best(n // d, order - 1, d)
        if rest and (not best or d + sum(rest) < sum(best)):
            best = (d, *rest)
    return best


@lru_cache(maxsize=4096)
def _divisors(n: int) -> Sizes:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return (*small, *(n // d for d in reversed(small) if d * d != n))
