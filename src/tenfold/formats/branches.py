"""Trees among networks: which factor hangs on which, and how a network with cycles is cut open to one."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tenfold.core.errors import UnsupportedError
from tenfold.core.network import Axes, Axis, Network, mode


class Link(NamedTuple):
    """A factor and the one above it, by number, and the bond between them."""

    child: int
    parent: int
    bond: Axis


@dataclass(frozen=True)
class Branch:
    """A connected part of a network: its root, and its links depth first, parents before their children."""

    root: int
    links: tuple[Link, ...]

    @property
    def first(self) -> int:
        """The leaf whose bond comes first when bonds are taken from the leaves to the root."""
        return self.links[-1].child if self.links else self.root

    @property
    def parents(self) -> frozenset[int]:
        """The factors that have others below them."""
        return frozenset(link.parent for link in self.links)


def holders_of(network: Network) -> dict[Axis, tuple[int, int]]:
    """Bond -> the two factors that share it, by number.

    Raises:
        UnsupportedError: if a bond belongs to more factors or fewer, or a mode to several.

    >>> holders_of(Network((("m0", "R"), ("R", "m1")), ("m0", "m1"), ()))
    {'R': (0, 1)}
    """
    found: dict[Axis, list[int]] = {}
    for number, axes in enumerate(network.factors):
        for axis in axes:
            found.setdefault(axis, []).append(number)
    for axis, numbers in found.items():
        wanted = 1 if axis in network.modes else 2
        if len(numbers) != wanted or len(set(numbers)) != wanted:
            kind = "mode" if wanted == 1 else "bond"
            raise UnsupportedError(
                f"{kind} {axis} belongs to {len(numbers)} factors, but orthogonal bases need "
                f"{'one' if wanted == 1 else 'two different ones'}.",
                "Tensor trains, rings, Tucker, hierarchical Tucker and low rank have such networks.",
            )
    return {b: (found[b][0], found[b][1]) for b in network.bonds}


def branches(network: Network, *roots: int) -> tuple[Branch, ...]:
    """The trees that a network consists of, those below the `roots` first; usually there is only one.

    Raises:
        UnsupportedError: if the network has a cycle.

    >>> train = Network((("m0", "R1"), ("R1", "m1", "R2"), ("R2", "m2")), ("m0", "m1", "m2"), ())
    >>> branches(train, 2)
    (Branch(root=2, links=(Link(child=1, parent=2, bond='R2'), Link(child=0, parent=1, bond='R1'))),)
    """
    around: list[list[tuple[Axis, int]]] = [[] for _ in network.factors]
    for b, (f, g) in holders_of(network).items():
        around[f].append((b, g))
        around[g].append((b, f))
    seen: set[int] = set()
    trees: list[Branch] = []
    for start in (*roots, *range(len(network.factors))):
        if start not in seen:
            trees.append(Branch(start, tuple(_descent(start, around, seen))))
    return tuple(trees)


def is_tree(network: Network) -> bool:
    """Whether the network has no cycle; it may fall into several trees. Raises as `holders_of`."""
    return len(spanning(network, lambda b: (0,))) == len(network.bonds)


def _descent(start: int, around: Sequence[Sequence[tuple[Axis, int]]], seen: set[int]) -> Iterator[Link]:
    """The links below `start`, depth first; without recursion, as trains may be long."""
    waiting = [Link(start, -1, "")]
    while waiting:
        link = waiting.pop()
        if link.child in seen:
            raise UnsupportedError(
                f"the network has a cycle through bond {link.bond}, so its factors cannot be orthogonal.",
                "Round it (`rounded` opens cycles), or give a train, Tucker or hierarchical Tucker.",
            )
        seen.add(link.child)
        if link.parent >= 0:
            yield link
        below = [Link(other, link.child, b) for b, other in around[link.child] if b != link.bond]
        waiting.extend(reversed(below))


def top(network: Network) -> int:
    """The root for rounding: the first factor, or where that is an end, the last factor that is an end.

    So it is the core of Tucker, the root of hierarchical Tucker, and the last core of a train.

    >>> top(Network((("R0", "R1"), ("m0", "R0"), ("m1", "R1")), ("m0", "m1"), ()))
    0
    >>> top(Network((("m0", "R1"), ("R1", "m1")), ("m0", "m1"), ()))
    1
    """
    counts = [sum(a not in network.modes for a in axes) for axes in network.factors]
    return max(k for k, n in enumerate(counts) if n == 1) if counts[0] == 1 else 0


def spanning(network: Network, prefer: Callable[[Axis], tuple[int, ...]]) -> frozenset[Axis]:
    """The bonds of a spanning tree, those with the highest preference first (Kruskal 1956).

    >>> ring = Network((("a", "b"), ("b", "c"), ("c", "a")), (), (("a", 5), ("b", 2), ("c", 3)))
    >>> sorted(spanning(ring, lambda bond: (ring.size_of[bond],)))
    ['a', 'c']
    """
    holders = holders_of(network)
    part = list(range(len(network.factors)))
    kept: set[Axis] = set()
    for b in sorted(network.bonds, key=prefer, reverse=True):
        first, second = (part[f] for f in holders[b])
        if first != second:
            kept.add(b)
            part = [first if p == second else p for p in part]
    return frozenset(kept)


def opened(network: Network, cut: Collection[Axis]) -> Network:
    """The network with two new modes in the place of each bond in `cut`, one for each of its factors.

    The axes of the factors stay in their order, so that the same arrays are opened by this and closed by
    `network`.

    >>> ring = Network((("a", "b"), ("b", "a")), (), (("a", 5), ("b", 2)))
    >>> opened(ring, ["a"]).factors
    (('m0', 'b'), ('b', 'm1'))
    """
    factors, sizes = list(network.factors), dict(network.sizes)
    modes: Axes = network.modes
    for b, pair in holders_of(network).items():
        if b in cut:
            size = sizes.pop(b)
            for f in pair:
                new = mode(len(modes))
                factors[f] = tuple(new if a == b else a for a in factors[f])
                modes, sizes[new] = (*modes, new), size
    return replace(network, factors=tuple(factors), modes=modes, sizes=tuple(sizes.items()))


def path_between(network: Network, first: int, last: int) -> tuple[Link, ...]:
    """The links of a tree network on the way from factor `first` up to factor `last`, in this order."""
    up = {link.child: link for tree in branches(network, last) for link in tree.links}
    way: list[Link] = []
    while (at := way[-1].parent if way else first) != last:
        way.append(up[at])
    return tuple(way)
