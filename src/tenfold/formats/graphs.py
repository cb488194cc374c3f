"""Questions about the graph of a format, before any arrays exist."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tenfold.core.errors import RankError, ShapeError
from tenfold.core.network import Axes, Axis, Network, distinct

if TYPE_CHECKING:
    from tenfold.formats.base import Format

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


def graph_for(cls: "type[Format]", order: int) -> tuple[Axes, ...]:
    """The axes of the format of this order."""
    graph = cls.axes(order)
    if len(modes_of(graph)) != order:
        raise ShapeError(f"{cls.__name__} does not hold tensors of order {order}.", "Use another format.")
    return graph


def graph_of(cls: "type[Format]", count: int) -> tuple[Axes, ...]:
    """The axes of the format that has `count` factors."""
    for order in range(1, count + 1):
        if len(graph := cls.axes(order)) == count:
            return graph
    raise ShapeError(f"{cls.__name__} cannot have {count} factors.", "Check the number of factors.")


def identity(axes: Axes) -> tuple[Axis, Axis] | None:
    """(mode, bond) if the factor is a matrix from a mode to a bond, which may be left out; otherwise None."""
    modes = modes_of([axes])
    if len(axes) != 2 or len(modes) != 1:
        return None
    return modes[0], next(a for a in axes if a != modes[0])


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
