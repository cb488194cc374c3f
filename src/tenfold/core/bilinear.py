"""The program of a bilinear layer: two inputs that share a batch meet one network of factors."""

from dataclasses import replace
from functools import lru_cache

from tenfold.core.cost import Cost
from tenfold.core.merging import Lowering, Wish
from tenfold.core.network import Axes, Axis, Network
from tenfold.core.node_sets import Nodes, Pair
from tenfold.core.program import Ints, Line, Program, Shuffle, Step, Stored, View
from tenfold.core.search import Graph, search_contraction

BATCH: Axis = "batch"
"""The axis that both inputs and the output share; no axis of a factor is called so."""


@lru_cache(maxsize=4096)
def lower_bilinear(
    network: Network, first: Axes, second: Axes, outputs: Axes, rows: int = 256, cost: Cost | None = None
) -> Program:
    """The program of y[b, o] = Σ W[o, i, j] x[b, i] z[b, j] for a batch of any size, planned for `rows`.

    Its buffers begin with the factors, x as (batch, *first) and z as (batch, *second); the result is
    (batch, outputs). Products of all three kinds are weighed: factors with each other, an input with a
    factor, and what has become of both inputs, row by row.

    >>> cp = Network((("o", "R"), ("i", "R"), ("j", "R")), (), (("o", 64), ("i", 64), ("j", 64), ("R", 16)))
    >>> lower_bilinear(cp, ("i",), ("j",), ("o",)).kinds
    ('linear', 'linear', 'join', 'linear')
    """
    both = ((BATCH, *first), (BATCH, *second))
    whole = replace(network, factors=network.factors + both, sizes=(*network.sizes, (BATCH, rows)))
    pairs = search_contraction(whole, (BATCH, *outputs), cost)
    return _Bilinear(whole, outputs, pairs).program()


class _Bilinear(Lowering):
    """Factors and inputs that meet; the batch has a size that is not known, -1."""

    def __init__(self, network: Network, outputs: Axes, pairs: tuple[Pair, ...]) -> None:
        super().__init__(Graph(network.factors, (BATCH, *outputs), network, None), network, 0)
        self.outputs, self.pairs = outputs, pairs
        self.count = len(network.factors) - 2
        self.inputs = self.leaf(self.count) | self.leaf(self.count + 1)

    def sizes(self, axes: Axes) -> Ints:
        return tuple(-1 if a == BATCH else self.network.size_of[a] for a in axes)

    def numel(self, axes: Axes) -> int:
        return -1 if BATCH in axes else self.network.product(axes)

    def wish(self, batch: Axes, rows: Axes, columns: Axes, summed: Axes) -> Wish:
        """As of any merge; but without a batch, matrices are matrices."""
        groups = (*([batch] if batch else ()), rows, columns, *([summed] if summed else ()))
        return Wish(groups, tuple(self.numel(g) for g in groups))

    def shape_of(self, s: Nodes) -> Ints:
        factor = s & (s - 1) == 0 and not s & self.inputs
        return self.wishes[s].shape if factor else super().shape_of(s)

    def program(self) -> Program:
        full = self.graph.full
        self.wishes[full] = Wish(((BATCH,), self.outputs), (-1, self.numel(self.outputs)))
        pairs = [self.wish_merge(p) for p in reversed(self.pairs)][::-1]
        stored = tuple(self.store(k) for k in range(self.count))
        for k in (self.count, self.count + 1):
            self.order[self.leaf(k)], self.buffer[self.leaf(k)] = self.network.factors[k], k
        steps: list[Step] = []
        for n, pair in enumerate(pairs):
            steps.append(self.merge(pair))
            self.buffer[pair[0] | pair[1]] = self.count + 2 + n
        if (end := self.view_of(full)) != View():
            steps.append(Shuffle(end.shape, end.perm))
        return Program(tuple(steps), stored, tuple(self.lines), inputs=2)

    def store(self, k: int) -> Stored:
        """A factor is stored just as the step that takes it wants it."""
        wish = self.wishes[self.leaf(k)]
        self.order[self.leaf(k)], self.buffer[self.leaf(k)] = wish.axes, k
        return Stored(wish.groups, wish.shape)

    def note(self, kind: str, left: Nodes, right: Nodes) -> None:
        """Under the name of its kind: of two factors, an input and a factor, or both inputs."""
        super().note(kind, left, right)
        met = bool(left & self.inputs) + bool(right & self.inputs)
        line: Line = self.lines.pop()
        self.lines.append(line._replace(kind=(kind, "linear", "join")[met]))
