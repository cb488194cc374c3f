"""The cheapest order in which to contract a network, alone or together with the input of a layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import opt_einsum

from tenfold.core.cost import Cost, Roofline, Work
from tenfold.core.errors import UnsupportedError
from tenfold.core.network import Axes, Axis, Network, distinct
from tenfold.core.node_sets import Nodes, Pair, pairs_of, splits, walk

EXACT = 8
"""Up to so many nodes every order is weighed; beyond, opt_einsum proposes one."""


@dataclass(frozen=True)
class Window:
    """How a spatial axis slides over the input, and how the input is padded (`mode` as in torch's layers).

    A `transposed` axis is scattered instead: every input position adds a kernel to the output, whose ends
    are cut by `before` and `after`. `length` is the input's, for the cost only.
    """

    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    length: int = 16
    mode: str = "zeros"
    transposed: bool = False

    def positions(self, taps: int) -> int:
        """Number of places where a kernel of `taps` taps lies: one for each output position, or, where it is
        transposed, one for each input position."""
        return self.length if self.transposed else self.outputs(taps)

    def outputs(self, taps: int) -> int:
        """Number of output positions for a kernel of `taps` taps.

        >>> Window(stride=2, before=1, after=1, length=8).outputs(4)
        4
        >>> Window(stride=2, before=1, after=1, length=4, transposed=True).outputs(4)
        8
        """
        reach, ends = self.dilation * (taps - 1) + 1, self.before + self.after
        if self.transposed:
            return max(1, (self.length - 1) * self.stride + reach - ends)
        return max(1, (self.length + ends - reach) // self.stride + 1)


@dataclass(frozen=True)
class Application:
    """A network applied to an input: which axes the input brings, which leave, which slide.

    An axis in both `inputs` and `outputs` is shared (the groups of a convolution). `rows` counts the
    batch positions.
    """

    network: Network
    inputs: Axes
    outputs: Axes
    windows: tuple[tuple[Axis, Window], ...] = ()
    rows: int = 256

    def __post_init__(self) -> None:
        for a in self.spatial:
            if sum(a in f for f in self.network.factors) != 1:
                raise UnsupportedError(
                    f"spatial axis '{a}' is carried by several factors, which cannot slide one by one.",
                    "Use a layout in which one mode holds the axis.",
                )
        if len({w.transposed for _, w in self.windows}) > 1:
            raise UnsupportedError(
                "some spatial axes slide and others are transposed.", "Make two layers of them."
            )

    @property
    def spatial(self) -> Axes:
        """The axes that slide, or are transposed."""
        return tuple(a for a, _ in self.windows)

    @cached_property
    def nodes(self) -> tuple[Axes, ...]:
        """The input, which every kernel tap waits for, then the factors."""
        return ((*self.inputs, *self.spatial), *self.network.factors)


class Graph:
    """Axes, positions and work of every set of nodes, each computed once."""

    def __init__(
        self, nodes: tuple[Axes, ...], outputs: Axes, network: Network, app: Application | None
    ) -> None:
        self.nodes, self.outputs, self.network, self.app = nodes, frozenset(outputs), network, app
        self.full = (1 << len(nodes)) - 1
        self._axes: dict[Nodes, Axes] = {}
        self._positions: dict[Nodes, int] = {}

    def members(self, s: Nodes) -> Iterator[int]:
        return (i for i in range(len(self.nodes)) if s >> i & 1)

    def axes(self, s: Nodes) -> Axes:
        """The axes of `s` that something outside of it still needs."""
        if s not in self._axes:
            outside = self.outputs.union(*(self.nodes[i] for i in self.members(self.full ^ s)))
            own = distinct([self.nodes[i] for i in self.members(s)])
            self._axes[s] = own if s & (s - 1) == 0 else tuple(a for a in own if a in outside)
        return self._axes[s]

    def streams(self, s: Nodes) -> bool:
        """Whether `s` holds the input of a layer."""
        return self.app is not None and bool(s & 1)

    def positions(self, s: Nodes) -> int:
        """Batch times spatial positions of the activation that `s` stands for."""
        if not self.streams(s) or self.app is None:
            return 1
        if s not in self._positions:
            count = self.app.rows
            for a, window in self.app.windows:
                waiting = a in self.axes(s)
                count *= window.length if waiting else window.outputs(self.network.size_of[a])
            self._positions[s] = count
        return self._positions[s]

    def placements(self, left: Nodes, right: Nodes) -> int:
        """Batch times places where the kernel lies when the activation `left` meets it.

        Those of the result; along an axis that is transposed in this step, those of the activation.
        """
        count = self.positions(left | right)
        if not self.streams(left) or self.app is None:
            return count
        for a, window in self.app.windows:
            if window.transposed and a in self.axes(right):
                count = count // window.outputs(self.network.size_of[a]) * window.length
        return count

    def channels(self, s: Nodes) -> Axes:
        """The axes of `s` that are stored: an activation does not hold the taps that it waits for."""
        if not self.streams(s) or self.app is None:
            return self.axes(s)
        return tuple(a for a in self.axes(s) if a not in self.app.spatial)

    def elements(self, s: Nodes) -> int:
        return self.network.product(self.channels(s)) * self.positions(s)

    def work(self, left: Nodes, right: Nodes) -> Work:
        """What the step does in which `left` meets `right`."""
        both = left | right
        ours, theirs, out = self.channels(left), self.axes(right), self.axes(both)
        sliding = self.app.spatial if self.app and self.streams(left) else ()
        taps = tuple(a for a in theirs if a in sliding)
        kept = tuple(a for a in ours if a in theirs and a in out)
        alone = tuple(a for a in ours if a not in theirs and a in out)
        new = tuple(a for a in theirs if a not in ours and a in out and a not in taps)
        gone = tuple(a for a in distinct([ours, theirs]) if a not in out and a not in taps)
        elements = self.elements(left) + self.elements(right) + self.elements(both)
        if kept and gone and self.streams(left) and self.app and not self.app.windows:
            elements += self.elements(left) + self.elements(both)  # brought into groups, and back
        size = self.network.product
        return Work(
            size(kept),
            size(alone) * self.placements(left, right),
            size(gone),
            size(new),
            size(taps),
            elements,
        )


def search(app: Application, cost: Cost | None = None, last_first: bool = False) -> tuple[Pair, ...]:
    """The cheapest order for a layer: pairs of node sets, in the order of execution.

    Of orders that cost the same, the one that meets the first axes of its input first, or the last ones.
    """
    return _search_application(app, cost or Roofline(), last_first)


def search_contraction(network: Network, outputs: Axes, cost: Cost | None = None) -> tuple[Pair, ...]:
    """The cheapest order to contract a network by itself, down to the axes `outputs`."""
    return _search_contraction(network, outputs, cost or Roofline())


@lru_cache(maxsize=4096)
def _search_application(app: Application, cost: Cost, last_first: bool) -> tuple[Pair, ...]:
    return _best(Graph(app.nodes, app.outputs, app.network, app), cost, last_first)


@lru_cache(maxsize=4096)
def _search_contraction(network: Network, outputs: Axes, cost: Cost) -> tuple[Pair, ...]:
    return _best(Graph(network.factors, outputs, network, None), cost)


def _best(graph: Graph, cost: Cost, last_first: bool = False) -> tuple[Pair, ...]:
    return _exact(graph, cost, last_first) if len(graph.nodes) <= EXACT else _proposed(graph)


def _exact(graph: Graph, cost: Cost, last_first: bool) -> tuple[Pair, ...]:
    """Dynamic programming over the subsets of nodes."""
    turn = -1 if last_first else 1
    total: dict[Nodes, float] = {}
    split: dict[Nodes, Pair] = {}
    for s in sorted(range(1, graph.full + 1), key=int.bit_count):
        if s & (s - 1) == 0:
            total[s] = 0.0
            continue
        options = [(total[a] + total[b] + cost(graph.work(a, b)), a, b) for a, b in splits(s)]
        best, left, right = min(options, key=lambda option: (option[0], turn * option[1], option[2]))
        total[s], split[s] = best, Pair((left, right))
    return tuple(walk(graph.full, split))


def _proposed(graph: Graph) -> tuple[Pair, ...]:
    """opt_einsum's order, for graphs too large to weigh every one."""
    letters = {a: opt_einsum.get_symbol(i) for i, a in enumerate(distinct(graph.nodes))}
    batch = opt_einsum.get_symbol(len(letters))
    streams = graph.app is not None
    terms = ["".join(letters[a] for a in n) for n in graph.nodes]
    shapes = [tuple(graph.network.size_of[a] for a in n) for n in graph.nodes]
    if streams:
        terms[0], shapes[0] = terms[0] + batch, (*shapes[0], graph.positions(graph.full))
    out = "".join(letters[a] for a in graph.axes(graph.full)) + (batch if streams else "")
    how = "greedy" if _tightest(graph) > EXACT else "auto-hq"
    path, _ = opt_einsum.contract_path(f"{','.join(terms)}->{out}", *shapes, shapes=True, optimize=how)
    return tuple(pairs_of(path, len(terms)))


def _tightest(graph: Graph) -> int:
    """The most nodes that one axis joins, as in CP: all parts of these are connected and would be weighed."""
    return max((sum(a in n for n in graph.nodes) for a in distinct(graph.nodes)), default=0)
