"""What can be changed in the factors of a network without changing the tensor.

On a tree every bond parts the factors in two, and QR factorisations push the bond's matrix from one side to
the other, until all factors but one are orthonormal. On any network, the columns along a bond can be scaled.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tenfold.core.arrays import Array, namespace
from tenfold.core.linalg import orthonormalise
from tenfold.core.network import Axes, Axis, Network

Factors = tuple[Array, ...]


class Move(NamedTuple):
    """From a factor to its neighbour across a bond."""

    source: int
    target: int
    bond: Axis


def carriers(network: Network, axis: Axis) -> tuple[int, ...]:
    """The factors that carry an axis.

    >>> carriers(Network((("m0", "R"), ("R", "m1")), ("m0", "m1"), ()), "R")
    (0, 1)
    """
    return tuple(k for k, axes in enumerate(network.factors) if axis in axes)


@lru_cache(maxsize=1024)
def tour(network: Network) -> tuple[Move, ...] | None:
    """The way around a tree from factor 0 over all factors and back; None if the network is no tree.

    A tree has one factor more than bonds, all connected; every bond joins two factors and every mode has one.

    >>> train = Network((("m0", "R1"), ("R1", "m1", "R2"), ("R2", "m2")), ("m0", "m1", "m2"), ())
    >>> [(move.source, move.target) for move in tour(train)]
    [(0, 1), (1, 2), (2, 1), (1, 0)]
    """
    joins = {b: carriers(network, b) for b in network.bonds}
    alone = all(len(carriers(network, m)) == 1 for m in network.modes)
    if not alone or any(len(pair) != 2 for pair in joins.values()):
        return None
    moves = tuple(_around(0, None, joins))
    spans = {move.target for move in moves} | {0} == set(range(len(network.factors)))
    return moves if spans and len(joins) == len(network.factors) - 1 else None


def _around(here: int, came: Axis | None, joins: dict[Axis, tuple[int, ...]]) -> Iterator[Move]:
    """Depth first; bonds on a cycle are tried from both ends, and stop at a depth no tree has."""
    pending = [(b, pair) for b, pair in joins.items() if here in pair and b != came]
    rest = {b: pair for b, pair in joins.items() if here not in pair}
    for b, pair in pending:
        there = pair[1] if pair[0] == here else pair[0]
        yield Move(here, there, b)
        yield from _around(there, b, rest)
        yield Move(there, here, b)


def shifted(network: Network, factors: Factors, move: Move) -> Factors:
    """The same tensor, with an orthonormal factor where the move comes from."""
    axes, other = network.factors[move.source], network.factors[move.target]
    xp, at, to = namespace(*factors), axes.index(move.bond), other.index(move.bond)
    moved = xp.moveaxis(factors[move.source], at, -1)
    q, r = orthonormalise(xp.reshape(moved, (-1, moved.shape[-1])))
    basis = xp.moveaxis(xp.reshape(q, (*moved.shape[:-1], q.shape[1])), -1, at)
    absorbed = xp.moveaxis(xp.tensordot(r, factors[move.target], axes=((1,), (to,))), 0, to)
    renewed = {move.source: basis, move.target: absorbed}
    return tuple(renewed.get(k, f) for k, f in enumerate(factors))


def orthonormalised(network: Network, factors: Factors, moves: Sequence[Move]) -> Factors:
    """All factors but number 0 orthonormal towards it; `moves` are those of `tour`."""
    seen: set[int] = {0}
    inward: list[Move] = []
    for move in moves:
        if move.target in seen and move.source in seen and move.source not in {m.source for m in inward}:
            inward.append(move)
        seen.add(move.target)
    for move in inward:
        factors = shifted(network, factors, move)
    return factors


def balanced(network: Network, factors: Factors) -> Factors:
    """The same tensor, with equal norms along every bond in all its factors, and equal norms of factors.

    For CP, the norms of a component are spread evenly over its vectors.
    """
    for b in network.bonds:
        holders = carriers(network, b)
        if len(holders) > 1:
            factors = _even(network, factors, b, holders)
    return _level(factors)


def _even(network: Network, factors: Factors, b: Axis, holders: tuple[int, ...]) -> Factors:
    xp = namespace(*factors)
    norms = [_norms_along(factors[k], network.factors[k].index(b)) for k in holders]
    positive = math.prod(norms) > 0
    mean = math.prod(n ** (1 / len(holders)) for n in norms)
    changed = dict(
        zip(holders, (_safe(mean / _safe(n, positive, xp), positive, xp) for n in norms), strict=True)
    )
    return tuple(
        f * _along(changed[k], network.factors[k], b, xp) if k in changed else f
        for k, f in enumerate(factors)
    )


def _norms_along(factor: Array, at: int) -> Array:
    """The norm of every slice."""
    xp = namespace(factor)
    rows = xp.moveaxis(factor, at, 0)
    return xp.linalg.vector_norm(xp.reshape(rows, (rows.shape[0], -1)), axis=1)


def _safe(x: Array, positive: Array, xp: object) -> Array:
    return xp.where(positive, x, xp.ones_like(x))  # type: ignore[attr-defined]


def _along(values: Array, axes: Axes, b: Axis, xp: object) -> Array:
    """A vector that lies along axis `b`."""
    shape = tuple(-1 if a == b else 1 for a in axes)
    return xp.reshape(values, shape)  # type: ignore[attr-defined]


def _level(factors: Factors) -> Factors:
    """Equal norms for all factors."""
    xp = namespace(*factors)
    norms = [xp.linalg.vector_norm(f) for f in factors]
    positive = math.prod(norms) > 0
    mean = math.prod(n ** (1 / len(norms)) for n in norms)
    return tuple(
        f * _safe(mean / _safe(n, positive, xp), positive, xp) for f, n in zip(factors, norms, strict=True)
    )
