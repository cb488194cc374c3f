"""Questions about the graph of a format, before any arrays exist."""

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tenfold.core.errors import RankError, ShapeError
from tenfold.core.network import Axes, Axis, Network, distinct, identity

if TYPE_CHECKING:
    from tenfold.formats.factored import Factored

__all__ = [
    "Ranks",
    "apart",
    "bonds_of",
    "expanded",
    "graph_for",
    "graph_of",
    "identity",
    "modes_of",
    "ranks_within",
]

Ranks = int | float | Sequence[int | None] | Mapping[Axis, int]
"""What people write: one rank for all bonds, one for each (None: this mode stays whole), a fraction of the
parameters, or bond -> size, in which a bond that is not named leaves its mode whole."""


def modes_of(factors: Sequence[Axes]) -> Axes:
    """The modes among the axes of a format, in order."""
    names = [a for a in distinct(factors) if a.startswith("m")]
    return tuple(sorted(names, key=lambda a: int(a[1:])))


def bonds_of(factors: Sequence[Axes]) -> Axes:
    """The bonds among the axes of a format, in order of appearance."""
    return tuple(a for a in distinct(factors) if not a.startswith("m"))


def graph_for(cls: "type[Factored]", order: int, static: Mapping[str, Any]) -> tuple[Axes, ...]:
    """The axes of the format of this order."""
    graph = _axes(cls, order, tuple(static.items()), repr(static))
    if len(modes_of(graph)) != order:
        raise ShapeError(f"{cls.__name__} does not hold tensors of order {order}.", "Use another format.")
    return graph


@lru_cache(maxsize=4096)
def graph_of(
    cls: "type[Factored]", ndims: tuple[int | None, ...], static: tuple[tuple[str, Any], ...]
) -> tuple[Axes, ...]:
    """The axes of the format whose factors have so many axes, None for those that are left out.

    Where the numbers of axes fit no order, the first one with so many factors: `network` says what is wrong.
    """
    near = None
    for order in range(1, max(len(ndims), sum(n or 1 for n in ndims)) + 1):
        graph = _graph_if_any(cls, order, static)
        if len(graph) == len(ndims):
            if all(n in (None, len(f)) for f, n in zip(graph, ndims, strict=True)):
                return graph
            near = near or graph
    if near is None:
        raise ShapeError(f"{cls.__name__} cannot have {len(ndims)} factors.", "Check the number of factors.")
    return near


def _graph_if_any(cls: "type[Factored]", order: int, static: tuple[tuple[str, Any], ...]) -> tuple[Axes, ...]:
    try:
        return _axes(cls, order, static, repr(static))
    except ShapeError:
        return ()


@lru_cache(maxsize=4096)
def _axes(
    cls: "type[Factored]", order: int, static: tuple[tuple[str, Any], ...], spelled: str
) -> tuple[Axes, ...]:
    """The axes, remembered; `spelled` tells 2 from 2.0, which the format may refuse."""
    return cls.axes(order, **dict(static))


def apart(network: Network, taken: Axes) -> Network:
    """The network with other names for the bonds that are `taken`, and for no others.

    >>> apart(Network((("m0", "R"), ("R", "R'")), ("m0",), ()), ("R",)).factors
    (('m0', "R''"), ("R''", "R'"))
    """
    names, used = {}, {*taken, *network.bonds}
    for b in network.bonds:
        if b in taken:
            names[b] = next(n for k in itertools.count(1) if (n := b + "'" * k) not in used)
            used.add(names[b])
    return network.renamed(names)


def ranks_within(full: Network, numel: int) -> dict[Axis, int]:
    """The largest uniform fraction of the ranks of `full` that stores at most `numel` elements.

    What the fraction leaves over is spent on single bonds, one more each while it fits. Raises RankError if
    ranks of 1 need more.
    """
    lowest = full.with_ranks(dict.fromkeys(full.bonds, 1))
    if lowest.numel > numel:
        raise RankError(
            f"ranks of 1 store {lowest.numel:,} elements, but only {numel:,} are allowed.",
            f"Allow {lowest.numel:,}, or leave the weight dense.",
        )
    low, high = 0.0, 1.0
    if _fraction(full, 1.0).numel <= numel:
        return full.ranks
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _fraction(full, middle).numel <= numel else (low, middle)
    return _filled(_fraction(full, low), full, numel).ranks


def _fraction(full: Network, share: float) -> Network:
    return full.with_ranks({b: max(1, int(share * r)) for b, r in full.ranks.items()}).clipped()


def _filled(network: Network, full: Network, numel: int) -> Network:
    """One more for the bond that is furthest below its share, as long as any fits."""
    while True:
        options = sorted(network.bonds, key=lambda b: network.ranks[b] / full.ranks[b])
        grown = (network.with_ranks({b: network.ranks[b] + 1}).clipped() for b in options)
        better = next((g for g in grown if network.numel < g.numel <= numel), None)
        if better is None:
            return network
        network = better


def expanded(index: Any, order: int) -> tuple[Any, ...]:
    """An index with one entry for every mode."""
    items = index if isinstance(index, tuple) else (index,)
    if any(item is None for item in items):
        raise ShapeError("a format cannot be indexed with None.", "Index with integers, slices or arrays.")
    dots = [k for k, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1 or len(items) - len(dots) > order:
        raise ShapeError(f"the index {index!r} does not fit {order} modes.", "Give at most one entry a mode.")
    at = dots[0] if dots else len(items)
    rest = (slice(None),) * (order - len(items) + len(dots))
    return items[:at] + rest + items[at + 1 :]
