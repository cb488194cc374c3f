"""Sums and entrywise products of two tensors on one graph, factor by factor."""

from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.core.arrays import Array, device_of
from tenfold.core.network import Axes, Axis, Network, shared_bonds

Pair = tuple[Network, Sequence[Array]]
"""A network and its factors."""


def direct_sum(ours: Pair, theirs: Pair, xp: Any) -> list[Array]:
    """Factors of the sum of two tensors whose graphs are the same, and joined by their bonds.

    Along a bond that all factors carry, terms are put side by side, and other bonds are filled up with zeros
    to one size. Otherwise every factor becomes block diagonal in all its bonds, so that only bonds of one
    tensor meet.
    """
    (network, a), (other, b) = ours, theirs
    along = shared_bonds(network.factors)[:1] or network.bonds
    size = _largest(network, other, along)
    return [_blocks(f, x, y, along, size, xp) for f, x, y in zip(network.factors, a, b, strict=True)]


def stacked(ours: Pair, theirs: Pair, xp: Any) -> list[Array]:
    """Factors of the sum of two tensors on any graph: each has a further axis of size 2, a bond of all."""
    (network, a), (other, b) = ours, theirs
    size = _largest(network, other, ())
    pairs = zip(network.factors, a, b, strict=True)
    return [xp.stack(_filled(f, x, y, size, xp), axis=-1) for f, x, y in pairs]


def entrywise(ours: Pair, theirs: Pair, xp: Any) -> list[Array]:
    """Factors of the entrywise product of two tensors on one graph: Kronecker products over the bonds."""
    (network, a), (_, b) = ours, theirs
    pairs = zip(network.factors, a, b, strict=True)
    return [_kronecker([m in network.modes for m in f], x, y, xp) for f, x, y in pairs]


def _largest(ours: Network, theirs: Network, along: Axes) -> dict[Axis, int]:
    """The larger size of every bond but those along which terms are put side by side."""
    return {b: max(ours.size_of[b], theirs.size_of[b]) for b in ours.bonds if b not in along}


def _blocks(axes: Axes, x: Array, y: Array, along: Axes, size: Mapping[Axis, int], xp: Any) -> Array:
    """A factor with `x` and `y` as the blocks of its diagonal in the bonds `along`."""
    x, y = _filled(axes, x, y, size, xp)
    bonds = [k for k, a in enumerate(axes) if a in along]
    if not bonds:
        return x + y
    before, after = x.shape, y.shape
    for k in bonds[1:]:
        x, y = _padded(x, k, 0, after[k], xp), _padded(y, k, before[k], 0, xp)
    return xp.concat([x, y], axis=bonds[0])


def _filled(axes: Axes, x: Array, y: Array, size: Mapping[Axis, int], xp: Any) -> list[Array]:
    """Two factors with zeros at the end of the bonds in `size`, up to the size given there."""
    for k, n in ((k, size[a]) for k, a in enumerate(axes) if a in size):
        x, y = _padded(x, k, 0, n - x.shape[k], xp), _padded(y, k, 0, n - y.shape[k], xp)
    return [x, y]


def _padded(x: Array, axis: int, before: int, after: int, xp: Any) -> Array:
    """Zeros before and after the entries along one axis."""
    blank = [
        xp.zeros((*x.shape[:axis], n, *x.shape[axis + 1 :]), dtype=x.dtype, device=device_of(x))
        for n in (before, after)
    ]
    return xp.concat([blank[0], x, blank[1]], axis=axis) if before or after else x


def _kronecker(shared: Sequence[bool], x: Array, y: Array, xp: Any) -> Array:
    """The product of two factors, entrywise in the axes that are shared and Kronecker in the others."""
    left = tuple(n for n, one in zip(x.shape, shared, strict=True) for n in ((n,) if one else (n, 1)))
    right = tuple(n for n, one in zip(y.shape, shared, strict=True) for n in ((n,) if one else (1, n)))
    shape = tuple(m if one else m * n for m, n, one in zip(x.shape, y.shape, shared, strict=True))
    return xp.reshape(xp.reshape(x, left) * xp.reshape(y, right), shape)
