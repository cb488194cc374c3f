"""Sets of nodes of a graph, as bit masks, and the pairs in which they meet: an order is a list of pairs."""

from collections.abc import Iterator

Nodes = int
"""A set of nodes as a bit mask; in a layer bit 0 is the input, in a pure contraction it is a factor."""


class Pair(tuple[Nodes, Nodes]):
    """Two sets of nodes that meet: (left, right); the input is always on the left."""


def splits(s: Nodes) -> Iterator[tuple[Nodes, Nodes]]:
    """All ways to part `s` in two; the half with the lowest node is the left one."""
    low = s & -s
    rest = s ^ low
    right = rest
    while right:
        yield s ^ right, right
        right = (right - 1) & rest


def walk(s: Nodes, split: dict[Nodes, Pair]) -> Iterator[Pair]:
    """The steps below `s`; factors meet factors before the input comes by."""
    if s in split:
        left, right = split[s]
        yield from walk(right, split)
        yield from walk(left, split)
        yield split[s]


def pairs_of(path: list[tuple[int, ...]], count: int) -> Iterator[Pair]:
    pool: list[Nodes] = [1 << i for i in range(count)]
    for positions in path:
        met = sorted((pool.pop(p) for p in sorted(positions, reverse=True)), key=lambda s: s & -s)
        while len(met) > 1:
            left, right = met[:2]
            yield Pair((left, right))
            met[:2] = [left | right]
        pool += met
