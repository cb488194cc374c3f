"""The cheapest order in which to look up rows of a table that is held as factors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import opt_einsum

from tenfold.core.cost import Cost, Roofline, Work
from tenfold.core.network import Axes, Axis, Network, distinct
from tenfold.core.node_sets import Nodes, pairs_of, splits
from tenfold.core.search import EXACT, Graph

BATCH: Axis = "index"
BAGS: Axis = "bag"
"""The axes of the indices and of the bags; no bond is called so, as bonds are in capitals."""


@dataclass(frozen=True)
class Lookup:
    """A network of which rows are looked up: the axes of the vocabulary are gathered, the outputs are free.

    An index is read as digits, one for each axis of `vocabulary`, the most significant first. `rows` counts
    the indices, `bags` the bags over which rows are added up (None: every index has its own output). With
    `leaves`, rows are taken from the factors as they are stored, never from products of them.
    """

    network: Network
    vocabulary: Axes
    outputs: Axes
    rows: int = 256
    bags: int | None = None
    leaves: bool = False


class Move(NamedTuple):
    """A step: two sets of nodes meet, or, where there is no right one, the left one is gathered or bagged."""

    left: Nodes
    right: Nodes | None
    made: Nodes


class LookupGraph(Graph):
    """The graph of a lookup. Two bits above those of the nodes say what became of the vocabulary's axes: with
    none they are there, with `gathered` the indices stand in their place, with `bagged` the bags."""

    def __init__(self, lookup: Lookup) -> None:
        network = lookup.network
        sizes = (*network.sizes, (BATCH, max(1, lookup.rows)), (BAGS, max(1, lookup.bags or 1)))
        outputs = (*lookup.vocabulary, *lookup.outputs)
        super().__init__(network.factors, outputs, replace(network, sizes=sizes), None)
        self.lookup = lookup
        self.gathered, self.bagged = self.full + 1, 2 * (self.full + 1)
        self.indexed = sum(1 << k for k, f in enumerate(network.factors) if self._in_vocabulary(f))

    def _in_vocabulary(self, axes: Axes) -> bool:
        return any(a in self.lookup.vocabulary for a in axes)

    @property
    def whole(self) -> Nodes:
        """The set that is looked for."""
        return self.full | (self.gathered if self.lookup.bags is None else self.bagged)

    def axes(self, s: Nodes) -> Axes:
        """The axes of `s` that something outside of it still needs; of a gathered one, the indices first."""
        own = super().axes(s & self.full)
        if s <= self.full:
            return own
        head = BAGS if s & self.bagged else BATCH
        return (head, *(a for a in own if a not in self.lookup.vocabulary))

    def rows_of(self, s: Nodes) -> Nodes:
        """The set as it is when every index has its own: gathered, if it has axes of the vocabulary."""
        return s | self.gathered if s & self.indexed else s

    def gathering(self, source: Nodes, target: Nodes) -> Work:
        """What it takes to look up rows of `source`, or to add them up in bags: traffic, no products.

        A product of several factors of the vocabulary is first turned, so that their axes become one.
        """
        rows = self.elements(source if source > self.full else self.rows_of(source))
        read = min(rows, self.elements(source))  # rows that are asked for again are in the cache
        several = source <= self.full and (source & self.indexed).bit_count() > 1
        turned = 2 * self.elements(source) if several else 0
        return Work(1, rows, 0, 0, 0, read + turned + self.elements(target))


def search_lookup(lookup: Lookup, cost: Cost | None = None) -> tuple[Move, ...]:
    """The cheapest steps in the order of execution.

    Factors may meet before rows are gathered from their product, all of them included: where there are many
    more indices than rows, the table is made. Bags are added up as soon as every index is looked up.
    """
    return _search_lookup(lookup, cost or Roofline())


@lru_cache(maxsize=4096)
def _search_lookup(lookup: Lookup, cost: Cost) -> tuple[Move, ...]:
    graph = LookupGraph(lookup)
    return tuple(_exact(graph, cost) if len(graph.nodes) <= EXACT else _proposed(graph))


def _exact(graph: LookupGraph, cost: Cost) -> Iterator[Move]:
    """Dynamic programming over the subsets of nodes, each raw, gathered and bagged."""
    total: dict[Nodes, float] = {}
    best: dict[Nodes, Move] = {}
    for s in sorted(range(1, graph.full + 1), key=int.bit_count):
        if s & (s - 1) == 0:
            total[s] = 0.0
        for made in _states(graph, s):
            options = [
                (_total(total, m) + cost(_work(graph, m)), m.left, m.right or 0, m)
                for m in _moves(graph, s, made)
                if m.left in total and (m.right is None or m.right in total)
            ]
            if options and made not in total:
                total[made], *_, best[made] = min(options, key=lambda o: o[:3])
    return _walk(graph.whole, best)


def _states(graph: LookupGraph, s: Nodes) -> Iterator[Nodes]:
    """What a set can be made into."""
    yield s
    if s & graph.indexed:
        yield s | graph.gathered
    if graph.lookup.bags is not None and s & graph.indexed == graph.indexed:
        yield s | graph.bagged


def _moves(graph: LookupGraph, s: Nodes, made: Nodes) -> Iterator[Move]:
    """All ways to come to `made` with the nodes `s` by one step."""
    state = made & ~graph.full
    leaf = s & (s - 1) == 0
    if state and (leaf or not graph.lookup.leaves):
        yield Move(s, None, made)
    if state == graph.bagged:
        yield Move(s | graph.gathered, None, made)
    for left, right in splits(s):
        has = [p & graph.indexed for p in (left, right)]
        if state != graph.bagged or not all(has):
            yield Move(left | state if has[0] else left, right | state if has[1] else right, made)


def _total(total: dict[Nodes, float], move: Move) -> float:
    return total[move.left] + (0.0 if move.right is None else total[move.right])


def _work(graph: LookupGraph, move: Move) -> Work:
    return graph.gathering(move.left, move.made) if move.right is None else graph.work(move.left, move.right)


def _walk(s: Nodes, best: dict[Nodes, Move]) -> Iterator[Move]:
    """The steps that lead to `s`."""
    if s in best:
        move = best[s]
        if move.right is not None:
            yield from _walk(move.right, best)
        yield from _walk(move.left, best)
        yield move


def _proposed(graph: LookupGraph) -> Iterator[Move]:
    """Rows of every factor, which then meet in opt_einsum's order; for graphs too large to weigh all."""
    leaves = [1 << k for k in range(len(graph.nodes))]
    axes = [graph.axes(graph.rows_of(leaf)) for leaf in leaves]
    letters = {a: opt_einsum.get_symbol(i) for i, a in enumerate(distinct(axes))}
    terms = ",".join("".join(letters[a] for a in x) for x in axes)
    out = "".join(letters[a] for a in (BATCH, *graph.lookup.outputs))
    shapes = [graph.network.extent(x) for x in axes]
    path, _ = opt_einsum.contract_path(f"{terms}->{out}", *shapes, shapes=True, optimize="auto-hq")
    yield from (Move(s, None, graph.rows_of(s)) for s in leaves if s & graph.indexed)
    yield from _with_bags(graph, [(a, b) for a, b in pairs_of(path, len(leaves))])


def _with_bags(graph: LookupGraph, pairs: list[tuple[Nodes, Nodes]]) -> Iterator[Move]:
    """The meetings, with the bags added up as soon as one set holds all that was gathered."""
    every, state = graph.indexed, graph.gathered
    for left, right in [(0, every), *pairs]:
        both = left | right
        if left:
            met, other, made = (s | state if s & every else s for s in (left, right, both))
            yield Move(met, other, made)
        complete = both & every == every and (left or every & (every - 1) == 0)
        if graph.lookup.bags is not None and state == graph.gathered and complete:
            yield Move(both | state, None, both | graph.bagged)
            state = graph.bagged
