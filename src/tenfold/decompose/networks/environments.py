"""Environments: a network contracted without one of its factors, for each factor in turn.

An environment of <T, M> is the gradient of a network M, one of <M, M> its Gram matrix. What several
environments have in common is contracted once: partial results are kept until a factor in them changes, and
the search for the cheapest order counts kept ones as free. For CP this finds the dimension tree, for a train
the sweep from both ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import opt_einsum

from tenfold.core.arrays import Array, namespace
from tenfold.core.cost import Cost, Roofline
from tenfold.core.merging import Lowering, Wish
from tenfold.core.network import Axes, Network, distinct
from tenfold.core.node_sets import Nodes, Pair
from tenfold.core.program import Merge, View, merge, view
from tenfold.core.search import Graph

EXACT = 7
"""Up to so many nodes every order is weighed; beyond, opt_einsum proposes one."""

DYNAMIC = 16
"""Up to so many nodes opt_einsum weighs every connected order; beyond, it takes the cheapest step next."""

PATIENCE = 0.1
"""By how much a result that never goes stale counts as cheaper than one that is stale at once."""


class Target(NamedTuple):
    """What to contract: all nodes but those in `without`, to the axes `outputs`."""

    without: Nodes
    outputs: Axes


class Kept(NamedTuple):
    """A result that is at hand: of these nodes, with its axes in this order."""

    nodes: Nodes
    axes: Axes


@dataclass(frozen=True)
class Work:
    """The merges that lead from what is at hand to a target."""

    start: tuple[Nodes, ...]
    merges: tuple[Merge, ...]
    results: tuple[Kept, ...]
    last: View


class Environments:
    """All environments of a closed network, computed on demand.

    `network` names the axes of every array and has no modes: every axis stands in two arrays at least. The
    arrays are replaced by `replace`, which drops the results that they went into.

    >>> import numpy as np
    >>> pair = Network((("m0", "m1"), ("m0", "R"), ("R", "m1")), (), (("m0", 2), ("m1", 3), ("R", 1)))
    >>> left, right = Target(0b010, ("m0", "R")), Target(0b100, ("R", "m1"))
    >>> both = Environments(pair, [left, right], [np.ones((2, 3)), np.ones((2, 1)), np.ones((1, 3))])
    >>> both(0)
    array([[3.],
           [3.]])
    >>> both.replace({1: 2 * np.ones((2, 1))})
    >>> both(1)
    array([[4., 4., 4.]])
    """

    def __init__(self, network: Network, targets: Sequence[Target], arrays: Sequence[Array]) -> None:
        self.network, self.targets = network, tuple(targets)
        self.xp = namespace(*arrays)
        self.values: dict[Nodes, Array] = {1 << k: array for k, array in enumerate(arrays)}
        self.kept: dict[Nodes, Axes] = {}
        self.lives = tuple(self._lives(k) for k in range(len(self.targets)))

    def __call__(self, k: int) -> Array:
        """The array of the k-th target."""
        at_hand = frozenset(Kept(*pair) for pair in self.kept.items())
        work = planned(self.network, self.targets[k], at_hand, self.lives[k])
        buffers = [self.values[nodes] for nodes in work.start]
        for step, result in zip(work.merges, work.results, strict=True):
            buffers.append(merge(step, buffers[step.left], buffers[step.right], self.xp))
            self.values[result.nodes], self.kept[result.nodes] = buffers[-1], result.axes
        return view(buffers[-1], work.last, self.xp)

    def replace(self, changed: Mapping[int, Array]) -> None:
        """Put other arrays in the place of some."""
        stale = sum(1 << k for k in changed)
        for nodes in [nodes for nodes in self.kept if nodes & stale]:
            del self.kept[nodes], self.values[nodes]
        self.values.update({1 << k: array for k, array in changed.items()})

    def _lives(self, k: int) -> tuple[int, ...]:
        """For every array, after how many targets it changes if each target renews what it goes without."""
        count = len(self.targets)
        lives = [count] * len(self.network.factors)
        for ahead in reversed(range(count)):
            for node in members(self.targets[(k + ahead) % count].without):
                lives[node] = ahead
        return tuple(lives)


def members(nodes: Nodes) -> Iterator[int]:
    """The numbers of the nodes in a set."""
    return (k for k in range(nodes.bit_length()) if nodes >> k & 1)


@lru_cache(maxsize=16384)
def planned(network: Network, target: Target, kept: frozenset[Kept], lives: tuple[int, ...]) -> Work:
    """The cheapest merges to a target, given what is at hand."""
    at_hand = {k.nodes: k.axes for k in kept if not k.nodes & target.without}
    everything = ((1 << len(network.factors)) - 1) & ~target.without
    graph = Graph(network.factors, target.outputs, network, None)
    pairs = cheapest(graph, everything, frozenset(at_hand), lives)
    made = {left | right for left, right in pairs}
    used = [nodes for pair in pairs for nodes in pair if nodes not in made] or [everything]
    orders = {
        nodes: at_hand[nodes] if nodes in at_hand else network.factors[nodes.bit_length() - 1]
        for nodes in used
    }
    return _Lowered(graph, network, target, orders).work(pairs)


class _Lowered(Lowering):
    """Merges of arrays of which some are results of earlier merges."""

    def __init__(self, graph: Graph, network: Network, target: Target, orders: Mapping[Nodes, Axes]) -> None:
        super().__init__(graph, network, 0)
        self.target, self.start = target, tuple(orders)
        self.order.update(orders)
        self.buffer.update({nodes: k for k, nodes in enumerate(orders)})

    def work(self, pairs: Sequence[Pair]) -> Work:
        everything = pairs[-1][0] | pairs[-1][1] if pairs else self.start[0]
        outputs = self.target.outputs
        self.wishes[everything] = Wish(tuple((a,) for a in outputs), self.sizes(outputs))
        ordered = [self.wish_merge(p) for p in reversed(pairs)][::-1]
        merges = []
        for n, (left, right) in enumerate(ordered):
            merges.append(self.merge(Pair((left, right))))
            self.buffer[left | right] = len(self.start) + n
        results = tuple(Kept(a | b, self.order[a | b]) for a, b in ordered)
        return Work(self.start, tuple(merges), results, self.view_of(everything))


def cheapest(
    graph: Graph, everything: Nodes, free: frozenset[Nodes] = frozenset(), lives: Sequence[int] = ()
) -> tuple[Pair, ...]:
    """The cheapest pairs of sets that lead to `everything`; sets in `free` cost nothing.

    Graphs of more than `EXACT` nodes take opt_einsum's order, and reuse what happens to be in it.
    """
    if everything in free or everything.bit_count() == 1:
        return ()
    split = (_weighed if everything.bit_count() <= EXACT else _proposed)(graph, everything, free, lives)
    return tuple(_walk(everything, split, free))


def _weighed(
    graph: Graph, everything: Nodes, free: frozenset[Nodes], lives: Sequence[int]
) -> dict[Nodes, Pair]:
    """Dynamic programming over the subsets; of equally cheap results those that stay valid longer win."""
    cost, longest = _Priced(graph), max(lives, default=0)
    total: dict[Nodes, float] = {}
    split: dict[Nodes, Pair] = {}
    for s in sorted(_subsets(everything), key=int.bit_count):
        if s.bit_count() == 1:
            total[s] = 0.0
            continue
        price, left, right = min((total[a] + total[b] + cost(a, b), a, b) for a, b in _halves(s))
        life = min((lives[k] for k in members(s)), default=0) / longest if longest else 0.0
        total[s] = 0.0 if s in free else price * (1 - PATIENCE * life)
        split[s] = Pair((left, right))
    return split


class _Priced:
    """The cost of a merge."""

    def __init__(self, graph: Graph, cost: Cost | None = None) -> None:
        self.graph, self.cost = graph, cost or Roofline(itemsize=8)

    def __call__(self, left: Nodes, right: Nodes) -> float:
        return self.cost(self.graph.work(left, right))


def _subsets(s: Nodes) -> Iterator[Nodes]:
    part = s
    while part:
        yield part
        part = (part - 1) & s


def _halves(s: Nodes) -> Iterator[tuple[Nodes, Nodes]]:
    """All ways to part `s` in two, the lowest node on the left."""
    rest = s ^ (s & -s)
    return ((s ^ right, right) for right in _subsets(rest))


def _walk(s: Nodes, split: Mapping[Nodes, Pair], free: frozenset[Nodes]) -> Iterator[Pair]:
    if s in split and s not in free:
        left, right = split[s]
        yield from _walk(right, split, free)
        yield from _walk(left, split, free)
        yield split[s]


def _proposed(
    graph: Graph, everything: Nodes, free: frozenset[Nodes], lives: Sequence[int]
) -> dict[Nodes, Pair]:
    """opt_einsum's order."""
    nodes = list(members(everything))
    axes = [graph.nodes[k] for k in nodes]
    letters = {a: opt_einsum.get_symbol(i) for i, a in enumerate(distinct([*axes, tuple(graph.outputs)]))}
    shapes = [graph.network.extent(a) for a in axes]
    terms = ["".join(letters[a] for a in group) for group in axes]
    out = "".join(letters[a] for a in sorted(graph.outputs))
    how = "dynamic-programming" if len(nodes) <= DYNAMIC else "greedy"
    path, _ = opt_einsum.contract_path(f"{','.join(terms)}->{out}", *shapes, shapes=True, optimize=how)
    pool, split = [1 << k for k in nodes], {}
    for positions in path:
        met = sorted((pool.pop(p) for p in sorted(positions, reverse=True)), key=lambda s: s & -s)
        while len(met) > 1:
            split[met[0] | met[1]] = Pair((met[0], met[1]))
            met[:2] = [met[0] | met[1]]
        pool += met
    return split
