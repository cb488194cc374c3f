"""Rows of a Khatri–Rao product, drawn by how much they weigh in a least-squares problem with it.

The leverage score of a row is its squared norm in an orthonormal basis of the columns. Those of a Khatri–Rao
product are at most the products of those of its factors, so that drawing one row of each factor,
independently, draws rows of the product without forming it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from jaxtyping import Float, Int, Num

from tenfold.core.arrays import Array, cast, namespace
from tenfold.core.errors import UnsupportedError
from tenfold.core.noise import normal


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of a Khatri–Rao product, each listed once.

    `numbers` are their numbers in it, `rows` those in each factor, and `weights` what the square of each
    residual counts, such that the sum is right on average.
    """

    numbers: Int[Array, " s"]
    rows: tuple[Int[Array, " s"], ...]
    weights: Float[Array, " s"]

    def product(self, factors: Sequence[Num[Array, "_ r"]]) -> Num[Array, "s r"]:
        """These rows of the Khatri–Rao product."""
        xp = namespace(*factors)
        chosen = [xp.take(f, at, axis=0) for f, at in zip(factors, self.rows, strict=True)]
        return prod(chosen[1:], start=chosen[0])


def leverage(factor: Num[Array, "i r"]) -> Float[Array, " i"]:
    """The leverage scores of the rows, as probabilities.

    >>> import numpy as np
    >>> leverage(np.array([[3.0], [4.0]])).round(12)
    array([0.36, 0.64])
    """
    xp = namespace(factor)
    q, _ = xp.linalg.qr(factor)
    scores = xp.sum(xp.abs(q) ** 2, axis=1)
    return scores / xp.sum(scores)


def drawn(
    factors: Sequence[Num[Array, "_ r"]], count: int, generator: Any, *, certain: bool = True
) -> Sample:
    """`count` rows of the Khatri–Rao product of the factors by their leverage; all of them if it has no more.

    With `certain`, rows that would be drawn once on average are taken for certain, with weight 1, and the
    others drawn beside them: many draws would go to few rows where leverage is concentrated. Rows that are
    drawn several times are listed once. There may be fewer than `count`.

    Source: Larsen & Kolda 2022, arXiv:2006.16438, algorithms 4 and 5.
    """
    sizes = [f.shape[0] for f in factors]
    _check_countable(sizes, factors[0])
    if prod(sizes) <= count:
        return _all(factors)
    chances = [leverage(f) for f in factors]
    sure = _certain(chances, 1.0 / count) if certain else []
    left = count - (sure[0].shape[0] if sure else 0)
    random = _random(chances, left, 1.0 / count if certain else 2.0, generator)
    return _joined(sure, random, sizes, chances[0]) if sure else random


def _check_countable(sizes: Sequence[int], like: Array) -> None:
    xp = namespace(like)
    if prod(sizes) > xp.iinfo(xp.asarray(0).dtype).max:
        raise UnsupportedError(
            f"the other modes, of sizes {tuple(sizes)}, have more fibres than can be numbered.",
            "Merge or leave out modes, or use CPALS, which does not sample.",
        )


def _all(factors: Sequence[Array]) -> Sample:
    xp, sizes = namespace(*factors), [f.shape[0] for f in factors]
    numbers = xp.arange(prod(sizes), device=factors[0].device)
    one = xp.ones_like(xp.abs(factors[0][:1, 0]))
    return Sample(numbers, _split(numbers, sizes), xp.broadcast_to(one, numbers.shape))


def _split(numbers: Array, sizes: Sequence[int]) -> tuple[Array, ...]:
    """The row of every factor from the number of the row in their product."""
    rows = []
    for size in reversed(sizes):
        rows.append(numbers % size)
        numbers = numbers // size
    return tuple(reversed(rows))


def _number(rows: Sequence[Array], sizes: Sequence[int]) -> Array:
    number = rows[0]
    for row, size in zip(rows[1:], sizes[1:], strict=True):
        number = number * size + row
    return number


def _certain(chances: Sequence[Float[Array, " _"]], least: float) -> list[Array]:
    """The rows of each factor whose chances have a product above `least`; factors are joined one by one.

    Of no factor does a row count whose chance is too small even with the best rows of all others.
    """
    best = [float(namespace(c).max(c)) for c in chances]
    xp = namespace(chances[0])
    chance = xp.ones_like(chances[0][:1])
    found: list[Array] = []
    for k, own in enumerate(chances):
        rest = prod(best[k + 1 :])
        able = xp.nonzero(own * (float(xp.max(chance)) if chance.shape[0] else 0.0) * rest > least)[0]
        joint = chance[:, None] * xp.take(own, able)[None, :]
        before, here = xp.nonzero(joint * rest > least)
        found = [xp.take(rows, before) for rows in found] + [xp.take(able, here)]
        chance = xp.take(xp.reshape(joint, (-1,)), before * joint.shape[1] + here)
    return found


def _random(chances: Sequence[Float[Array, " _"]], count: int, most: float, generator: Any) -> Sample:
    """Draws of a row of each factor; those with a chance above `most` are left out, they are certain."""
    xp, sizes = namespace(chances[0]), [c.shape[0] for c in chances]
    rows = [_picked(c, count, generator) for c in chances]
    kept = xp.nonzero(_joint(chances, rows) <= most)[0]
    numbers, times = xp.unique_counts(xp.take(_number(rows, sizes), kept))
    found = _split(numbers, sizes)
    chance = _joint(chances, found)
    return Sample(numbers, found, cast(times, chance.dtype) / (count * chance))


def _joint(chances: Sequence[Float[Array, " _"]], rows: Sequence[Int[Array, " s"]]) -> Float[Array, " s"]:
    """The chance to draw these rows of all factors."""
    each = [namespace(c).take(c, at) for c, at in zip(chances, rows, strict=True)]
    return prod(each[1:], start=each[0])


def _picked(chance: Float[Array, " i"], count: int, generator: Any) -> Int[Array, " count"]:
    """Row numbers by their chance: where uniform numbers fall among the cumulated chances."""
    xp = namespace(chance)
    ends = xp.cumulative_sum(chance)
    at = xp.searchsorted(ends, uniform(count, like=ends, generator=generator) * ends[-1], side="right")
    return xp.clip(at, 0, chance.shape[0] - 1)


def uniform(count: int, *, like: Float[Array, "..."], generator: Any) -> Float[Array, " count"]:
    """Numbers from 0 to 1: exp(-(a² + b²) / 2) of normal a and b."""
    xp = namespace(like)
    pair = normal((2, count), like=like, generator=generator)
    return xp.exp(-0.5 * xp.sum(pair**2, axis=0))


def _joined(sure: Sequence[Array], random: Sample, sizes: Sequence[int], like: Array) -> Sample:
    xp = namespace(like)
    rows = tuple(xp.concat([a, cast(b, a.dtype)]) for a, b in zip(sure, random.rows, strict=True))
    weights = xp.concat([xp.ones_like(cast(sure[0], like.dtype)), random.weights])
    return Sample(_number(rows, sizes), rows, weights)
