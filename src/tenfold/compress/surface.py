"""A quantity that grows with the ranks, measured at a few of them and read off between."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from tenfold.core.network import Axis, Network

EACH = 6
"""Knots of a bond at most."""
MOST = 25
"""Points of a grid at most."""
STEP = 8
"""Knots above it are multiples of it: hardware is slower at odd sizes, and those are better not chosen."""

Knots = Mapping[Axis, tuple[int, ...]]
"""Bond -> the ranks at which the quantity is known, in rising order."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Values on a grid of ranks, multilinear between the knots and constant beyond them.

    Arithmetic and memory are multilinear in the ranks of CP and Tucker, and nearly so in those of a train, so
    that few knots do; what is not, such as a change of algorithm at some size, is seen at the knots alone.

    >>> surface = Surface({"R": (1, 3, 9)}, np.array([1.0, 2.0, 8.0]))
    >>> surface({"R": 2}), surface({"R": 6}), surface({"R": 99})
    (1.5, 5.0, 8.0)
    """

    knots: Knots
    values: Float[np.ndarray, "..."]

    def __call__(self, ranks: Mapping[Axis, int]) -> float:
        """The value at these ranks."""
        values = self.values
        for bond, known in self.knots.items():
            values = _at(values, known, min(max(ranks[bond], known[0]), known[-1]))
        return float(values)

    @staticmethod
    def through(knots: Knots, values: Float[np.ndarray, "..."]) -> "Surface":
        """The surface through measured values, made to grow along every bond.

        Half way between the least growing values above the measured ones and the greatest below them: values
        that grow already are kept, and a single one that is too high or too low moves its neighbours little.

        >>> Surface.through({"R": (1, 2, 3, 4)}, np.array([1.0, 3.0, 2.0, 4.0])).values
        array([1. , 2.5, 2.5, 4. ])
        """
        above, below = values, values
        for k in range(values.ndim):
            above = np.maximum.accumulate(above, axis=k)
            below = np.flip(np.minimum.accumulate(np.flip(below, k), axis=k), k)
        return Surface(knots, (above + below) / 2)


def _at(values: Float[np.ndarray, "n ..."], known: tuple[int, ...], rank: int) -> Float[np.ndarray, "..."]:
    """The values along the first axis at one rank."""
    if len(known) == 1:
        return values[0]
    k = min(int(np.searchsorted(known, rank, side="right")), len(known) - 1)
    share = (rank - known[k - 1]) / (known[k] - known[k - 1])
    return (1 - share) * values[k - 1] + share * values[k]


def spread(full: Network) -> Knots:
    """Knots between 1 and the ranks of a full network, denser among small ones: `EACH` a bond, `MOST` in all.

    They are squares of equal steps up to where the bond alone, all others being 1, stores as much as the
    dense tensor; and the full rank.

    >>> from tenfold.formats import CP, Tucker
    >>> spread(CP.full((64, 64, 9)))
    {'R': (1, 24, 72, 152, 269, 576)}
    >>> {b: len(k) for b, k in spread(Tucker.full((64, 64, 9), whole=(2,))).items()}
    {'R0': 5, 'R1': 5}
    """
    ranks = full.ranks
    counts = {b: min(2, n) for b, n in ranks.items()}
    while growing := [b for b in ranks if _fits(counts, b, ranks[b])]:
        counts[max(growing, key=lambda b: ranks[b] / counts[b])] += 1
    return {b: _knots(paying(full, b), n, counts[b]) for b, n in ranks.items()}


def paying(full: Network, bond: Axis) -> int:
    """The largest rank of a bond that stores no more than the dense tensor where all others are 1."""
    ones, dense = dict.fromkeys(full.bonds, 1), math.prod(full.shape)
    first, second = (full.with_ranks(ones | {bond: r}).numel for r in (1, 2))
    return max(1, min(full.ranks[bond], 1 + (dense - first) // (second - first)))


def _fits(counts: Mapping[Axis, int], bond: Axis, full: int) -> bool:
    more = counts[bond] + 1
    return more <= min(EACH, full) and math.prod(counts.values()) // counts[bond] * more <= MOST


def _knots(end: int, full: int, count: int) -> tuple[int, ...]:
    """So many ranks, those above `STEP` rounded up to its multiples."""
    if count == 1:
        return (full,)
    steps = count - 1 if end == full else max(1, count - 2)
    wanted = [max(1, round(end * (k / steps) ** 2)) for k in range(steps + 1)]
    rounded = {n if n <= STEP or n == end else min(end, -(-n // STEP) * STEP) for n in wanted}
    return tuple(sorted(rounded | {full}))


def points(knots: Knots) -> Iterator[dict[Axis, int]]:
    """The ranks at every point of the grid, the last bond running fastest."""
    return (dict(zip(knots, ranks, strict=True)) for ranks in product(*knots.values()))
