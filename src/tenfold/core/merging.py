"""Factors that meet factors: what lowering a network alone and lowering a layer have in common."""

from dataclasses import dataclass

from tenfold.core.network import Axes, Network
from tenfold.core.node_sets import Nodes, Pair
from tenfold.core.program import Ints, Line, Merge, View
from tenfold.core.search import Graph


@dataclass
class Wish:
    """How a step wants a weight: groups of axes, one for every axis of the array that it takes."""

    groups: tuple[Axes, ...]
    shape: Ints

    @property
    def axes(self) -> Axes:
        return tuple(a for g in self.groups for a in g)


@dataclass
class Meeting:
    """The four parts in which the axes of two operands fall when they meet."""

    batch: Axes
    left: Axes
    right: Axes
    gone: Axes
    left_sum: Axes = ()
    right_sum: Axes = ()


def meet(left: Axes, right: Axes, out: Axes) -> Meeting:
    shared = [a for a in left if a in right]
    return Meeting(
        batch=tuple(a for a in shared if a in out),
        left=tuple(a for a in left if a not in right and a in out),
        right=tuple(a for a in right if a not in left and a in out),
        gone=tuple(a for a in shared if a not in out),
        left_sum=tuple(a for a in left if a not in right and a not in out),
        right_sum=tuple(a for a in right if a not in left and a not in out),
    )


class Lowering:
    """What the two kinds of programs share: merges of factors with factors."""

    def __init__(self, graph: Graph, network: Network, first_factor: int) -> None:
        self.graph, self.network, self.first_factor = graph, network, first_factor
        self.order: dict[Nodes, Axes] = {}
        self.wishes: dict[Nodes, Wish] = {}
        self.buffer: dict[Nodes, int] = {}
        self.lines: list[Line] = []

    def sizes(self, axes: Axes) -> Ints:
        return self.network.extent(axes)

    def numel(self, axes: Axes) -> int:
        return self.network.product(axes)

    def leaf(self, k: int) -> Nodes:
        return 1 << (k + self.first_factor)

    def wish_merge(self, pair: Pair) -> Pair:
        """Tell both operands of a merge in which order they are wanted; returns them in the best order."""
        left, right = pair
        out = self.graph.axes(left | right)
        wanted = self.wishes[left | right].axes if left | right in self.wishes else out
        rank = {a: k for k, a in enumerate(wanted)}
        met = meet(self.graph.axes(left), self.graph.axes(right), out)
        if met.left and met.right and min(rank[a] for a in met.left) > min(rank[a] for a in met.right):
            left, right = right, left
            met = meet(self.graph.axes(left), self.graph.axes(right), out)
        batch, own, other = (tuple(sorted(x, key=rank.__getitem__)) for x in (met.batch, met.left, met.right))
        self.order[left | right] = (*batch, *own, *other)
        self.wishes[left] = self.wish(batch, own, met.gone, met.left_sum)
        self.wishes[right] = self.wish(batch, met.gone, other, met.right_sum)
        return Pair((left, right))

    def wish(self, batch: Axes, rows: Axes, columns: Axes, summed: Axes) -> Wish:
        """One operand of a batched matrix product; axes that nothing else carries come last, to be summed."""
        groups = (batch, rows, columns, summed) if summed else (batch, rows, columns)
        return Wish(groups, tuple(self.numel(g) for g in groups))

    def view_of(self, s: Nodes) -> View:
        """How the array that stands for `s` becomes what its step wants."""
        wish, order = self.wishes[s], self.order[s]
        perm = tuple(order.index(a) for a in wish.axes)
        if perm == tuple(range(len(perm))):
            return View((), () if self.shape_of(s) == wish.shape else wish.shape)
        return View(perm, wish.shape)

    def shape_of(self, s: Nodes) -> Ints:
        """Shape of the array that stands for `s`."""
        return self.sizes(self.order[s])

    def merge(self, pair: Pair) -> Merge:
        left, right = pair
        met = meet(self.graph.axes(left), self.graph.axes(right), self.graph.axes(left | right))
        step = Merge(
            self.buffer[left],
            self.buffer[right],
            self.view_of(left),
            self.view_of(right),
            len(met.left_sum),
            len(met.right_sum),
            not met.gone,
            self.sizes(self.order[left | right]),
        )
        self.note("merge", left, right)
        return step

    def shown(self, s: Nodes) -> str:
        """The stored axes of a set of nodes with their sizes."""
        return " ".join(f"{a}={self.network.size_of[a]}" for a in self.graph.channels(s)) or "1"

    def note(self, kind: str, left: Nodes, right: Nodes) -> None:
        work = self.graph.work(left, right)
        both = left | right
        show = [self.shown(s) for s in (left, right, both)]
        self.lines.append(
            Line(kind, f"({show[0]}) ({show[1]})", show[2], 2 * work.multiply_adds, self.graph.elements(both))
        )
