"""The program of a lookup: which digits of an index take which rows, and how the rows meet."""

from functools import lru_cache

from tenfold.core.cost import Cost
from tenfold.core.errors import UnsupportedError
from tenfold.core.lookup import BAGS, BATCH, Lookup, LookupGraph, Move, search_lookup
from tenfold.core.merging import Lowering, Wish, meet
from tenfold.core.network import Axes
from tenfold.core.node_sets import Nodes, Pair
from tenfold.core.program import Bag, Gather, Ints, Line, Program, Shuffle, Step, Stored, View

HEADS = (BATCH, BAGS)
"""The axes whose size is not known."""
Digit = tuple[int, int, int]
"""Divisor, modulus and factor of one digit: see `Gather`."""


@lru_cache(maxsize=4096)
def lower_lookup(lookup: Lookup, cost: Cost | None = None) -> Program:
    """The program of a lookup; it serves any number of indices, and its result is (indices, outputs).

    Factors are stored in the order in which the steps want them, those of the vocabulary as (rows, rest).
    """
    return _Lookup(lookup, search_lookup(lookup, cost)).program()


class _Lookup(Lowering):
    """Factors and rows of factors that meet; the axis of the indices has a size that is not known, -1."""

    graph: LookupGraph

    def __init__(self, lookup: Lookup, moves: tuple[Move, ...]) -> None:
        graph = LookupGraph(lookup)
        super().__init__(graph, graph.network, 0)
        self.lookup, self.moves = lookup, moves
        self.flat: set[Nodes] = set()

    def sizes(self, axes: Axes) -> Ints:
        return tuple(-1 if a in HEADS else self.network.size_of[a] for a in axes)

    def numel(self, axes: Axes) -> int:
        return -1 if set(HEADS) & set(axes) else self.network.product(axes)

    def wish(self, batch: Axes, rows: Axes, columns: Axes, summed: Axes) -> Wish:
        """As of any merge; but without a batch, matrices are matrices."""
        groups = (*([batch] if batch else ()), rows, columns, *([summed] if summed else ()))
        return Wish(groups, tuple(self.numel(g) for g in groups))

    def wish_merge(self, pair: Pair) -> Pair:
        """As of any merge; but where all axes are kept, those that both have come last, after the indices.

        Products along a long last axis are several times faster, above all backward.
        """
        left, right = super().wish_merge(pair)
        both = left | right
        met = meet(*(self.graph.axes(s) for s in (left, right, both)))
        order = self.order[both]
        head, last = ([a for a in order if a in met.batch and (a in HEADS) == h] for h in (True, False))
        rows, columns = ([a for a in order if a in side] for side in (met.left, met.right))
        if met.gone or met.left_sum or met.right_sum or not last or not rows + columns:
            return Pair((left, right))
        self.order[both] = (*head, *rows, *columns, *last)
        for s, own, other in ((left, rows, []), (right, [], columns)):
            groups = [tuple(g) for g in ([head] if head else []) + [own, other, last]]
            self.wishes[s] = Wish(tuple(groups), tuple(self.numel(g) for g in groups))
        return Pair((left, right))

    def shape_of(self, s: Nodes) -> Ints:
        if s in self.flat:
            return (-1, self.numel(self.order[s][1:]))
        return self.wishes[s].shape if s & (s - 1) == 0 else super().shape_of(s)

    def program(self) -> Program:
        whole = self.graph.whole
        head, *own = self.graph.axes(whole)
        outputs = self.lookup.outputs
        last = (*outputs, *(a for a in own if a not in outputs))
        if (size := self.numel(last)) != self.numel(outputs):
            raise UnsupportedError(f"the single factor has bonds that lead nowhere: {own}.", "Sum over them.")
        self.wishes[whole] = Wish(((head,), last), (-1, size))
        moves = [self.wish_move(m) for m in reversed(self.moves)][::-1]
        stored = tuple(self.store(k) for k in range(len(self.network.factors)))
        steps: list[Step] = []
        for k, move in enumerate(moves):
            steps.append(self.step(move, self.smallest))
            self.buffer[move.made] = len(stored) + k
        end = self.view_of(whole)
        if end != View():
            steps.append(Shuffle(end.shape, end.perm))
        return Program(tuple(steps), stored, tuple(self.lines))

    @property
    def smallest(self) -> Move:
        """The gathering with the shortest rows, where zeroing one is cheapest."""
        gathers = [m for m in self.moves if m.right is None and m.left <= self.graph.full]
        return min(gathers, key=lambda m: self.numel(self.graph.axes(m.made)[1:]))

    def store(self, k: int) -> Stored:
        """A factor is stored just as the step that takes it wants it."""
        wish = self.wishes[self.leaf(k)]
        self.order[self.leaf(k)], self.buffer[self.leaf(k)] = wish.axes, k
        return Stored(wish.groups, wish.shape)

    def wish_move(self, move: Move) -> Move:
        """Tell the operands of a step in which order they are wanted."""
        if move.right is not None:
            return Move(*self.wish_merge(Pair((move.left, move.right))), move.made)
        own = self.graph.axes(move.made)
        head = own[0]
        wanted = self.wishes[move.made].axes if move.made in self.wishes else own
        rest = tuple(a for a in wanted if a != head)
        self.order[move.made] = (head, *rest)
        if wanted == (head, *rest):
            self.flat.add(move.made)
        first = self.vocabulary(move.left) if move.left <= self.graph.full else (BATCH,)
        self.wishes[move.left] = Wish((first, rest), (self.numel(first), self.numel(rest)))
        return move

    def vocabulary(self, s: Nodes) -> Axes:
        """The axes of the vocabulary that `s` carries, the most significant first."""
        own = self.graph.axes(s)
        return tuple(a for a in self.lookup.vocabulary if a in own)

    def step(self, move: Move, zeroes: Move) -> Step:
        if move.right is not None:
            return self.merge(Pair((move.left, move.right)))
        shape = () if move.made in self.flat else self.sizes(self.order[move.made])
        place, how = self.buffer[move.left], self.view_of(move.left)
        bagged = bool(move.made & self.graph.bagged)
        kind = "bag" if move.left > self.graph.full else "gather and bag" if bagged else "gather"
        shown = f"({self.shown(move.left)})"
        self.lines.append(Line(kind, shown, self.shown(move.made), 0, self.graph.elements(move.made)))
        if move.left > self.graph.full:
            return Bag(place, how, shape)
        digits = self.digits(self.vocabulary(move.left))
        return Gather(place, how, digits, shape, move == zeroes, bagged)

    def digits(self, axes: Axes) -> tuple[Digit, ...]:
        """How the number of a row is made of an index; neighbouring digits are read as one.

        >>> from tenfold.core.network import Network
        >>> table = Network((("v0", "v1", "v2", "o"),), (), (("v0", 5), ("v1", 4), ("v2", 3), ("o", 2)))
        >>> reader = _Lookup(Lookup(table, ("v0", "v1", "v2"), ("o",)), ())
        >>> reader.digits(("v0", "v1", "v2")), reader.digits(("v0", "v2")), reader.digits(("v1",))
        (((1, 0, 1),), ((12, 0, 3), (1, 3, 1)), ((3, 4, 1),))
        """
        order = self.lookup.vocabulary
        runs: list[Axes] = []
        for a in axes:
            follows = runs and order.index(a) == order.index(runs[-1][-1]) + 1
            runs[-1:] = [(*runs[-1], a)] if follows else [*runs[-1:], (a,)]
        found = []
        for run in runs:
            later = order[order.index(run[-1]) + 1 :]
            lower = axes[axes.index(run[-1]) + 1 :]
            modulus = 0 if run[0] == order[0] else self.numel(run)
            found.append((self.numel(later), modulus, self.numel(lower)))
        return tuple(found)
