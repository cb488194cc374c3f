"""From a contraction order to a program: every permutation, reshape and kernel size as plain ints."""

from dataclasses import dataclass, field
from functools import lru_cache

from tenfold.core.cost import Cost
from tenfold.core.network import Axes, Network
from tenfold.core.program import (
    Batched,
    Conv,
    Ints,
    Line,
    Linear,
    Merge,
    Program,
    Shuffle,
    Step,
    Stored,
    View,
)
from tenfold.core.search import Application, Graph, Nodes, Pair, Window, search, search_contraction


@lru_cache(maxsize=4096)
def lower(app: Application, cost: Cost | None = None) -> Program:
    """The program of a layer; its factors are stored in the order in which the steps want them."""
    return _Layer(app, search(app, cost)).program()


@lru_cache(maxsize=4096)
def lower_contraction(network: Network, outputs: Axes, cost: Cost | None = None) -> Program:
    """The program that contracts a network to the axes `outputs`; factors come in the network's order."""
    return _Contraction(network, outputs, search_contraction(network, outputs, cost)).program()


@dataclass
class Wish:
    """How a step wants a weight: groups of axes, one for every axis of the array that it takes."""

    groups: tuple[Axes, ...]
    shape: Ints

    @property
    def axes(self) -> Axes:
        return tuple(a for g in self.groups for a in g)


@dataclass
class _Meeting:
    """The four parts in which the axes of two operands fall when they meet."""

    batch: Axes
    left: Axes
    right: Axes
    gone: Axes
    left_sum: Axes = ()
    right_sum: Axes = ()


def _meet(left: Axes, right: Axes, out: Axes) -> _Meeting:
    shared = [a for a in left if a in right]
    return _Meeting(
        batch=tuple(a for a in shared if a in out),
        left=tuple(a for a in left if a not in right and a in out),
        right=tuple(a for a in right if a not in left and a in out),
        gone=tuple(a for a in shared if a not in out),
        left_sum=tuple(a for a in left if a not in right and a not in out),
        right_sum=tuple(a for a in right if a not in left and a not in out),
    )


class _Lowering:
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
        met = _meet(self.graph.axes(left), self.graph.axes(right), out)
        if met.left and met.right and min(rank[a] for a in met.left) > min(rank[a] for a in met.right):
            left, right = right, left
            met = _meet(self.graph.axes(left), self.graph.axes(right), out)
        batch, own, other = (tuple(sorted(x, key=rank.__getitem__)) for x in (met.batch, met.left, met.right))
        self.order[left | right] = (*batch, *own, *other)
        b, m, n, k = (self.numel(x) for x in (batch, own, other, met.gone))
        tail_l, tail_r = ((met.left_sum,), (met.right_sum,)) if met.left_sum or met.right_sum else ((), ())
        more_l = (self.numel(met.left_sum),) if met.left_sum else ()
        more_r = (self.numel(met.right_sum),) if met.right_sum else ()
        self.wishes[left] = Wish((batch, own, met.gone, *tail_l * bool(more_l)), (b, m, k, *more_l))
        self.wishes[right] = Wish((batch, met.gone, other, *tail_r * bool(more_r)), (b, k, n, *more_r))
        return Pair((left, right))

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
        met = _meet(self.graph.axes(left), self.graph.axes(right), self.graph.axes(left | right))
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

    def note(self, kind: str, left: Nodes, right: Nodes) -> None:
        work = self.graph.work(left, right)
        both = left | right
        show = [" ".join(self.graph.channels(s)) or "1" for s in (left, right, both)]
        self.lines.append(
            Line(kind, f"({show[0]}) ({show[1]})", show[2], 2 * work.multiply_adds, self.graph.elements(both))
        )


class _Contraction(_Lowering):
    """A network by itself: merges only, the last result permuted to the outputs."""

    def __init__(self, network: Network, outputs: Axes, pairs: tuple[Pair, ...]) -> None:
        super().__init__(Graph(network.factors, outputs, network, None), network, 0)
        self.outputs, self.pairs = outputs, pairs

    def program(self) -> Program:
        full = self.graph.full
        for k, axes in enumerate(self.network.factors):
            self.order[self.leaf(k)], self.buffer[self.leaf(k)] = axes, k
        self.wishes[full] = Wish(tuple((a,) for a in self.outputs), self.sizes(self.outputs))
        pairs = [self.wish_merge(p) for p in reversed(self.pairs)][::-1]
        steps: list[Step] = []
        for n, pair in enumerate(pairs):
            steps.append(self.merge(pair))
            self.buffer[pair[0] | pair[1]] = len(self.network.factors) + n
        last = self.view_of(full)
        if last != View():
            steps.append(Shuffle(last.shape, last.perm))
        return Program(tuple(steps), (), tuple(self.lines))


@dataclass
class _Turn:
    """One meeting of the activation with a weight, before buffers are numbered."""

    weight: Nodes
    left: Nodes
    steps: list[Step] = field(default_factory=list)
    kind: str = ""


class _Layer(_Lowering):
    """A network with an input: the activation runs through the steps, weights lie as they want them."""

    def __init__(self, app: Application, pairs: tuple[Pair, ...]) -> None:
        super().__init__(Graph(app.nodes, app.outputs, app.network, app), app.network, 1)
        self.app, self.pairs = app, pairs
        self.windows = dict(app.windows)

    def program(self) -> Program:
        turns, current = self.stream()
        merges = [self.wish_merge(p) for p in reversed(self.pairs) if not p[0] & 1][::-1]
        stored = tuple(self.store(k) for k in range(len(self.network.factors)))
        steps = self.emit(turns, iter(merges))
        if current != self.app.outputs:
            steps.append(self.shuffle(current, self.app.outputs))
        return Program(tuple(steps), stored, tuple(self.lines), _makes_all(steps[-1]), len(self.windows))

    def store(self, k: int) -> Stored:
        """A factor is stored just as the step that takes it wants it."""
        wish = self.wishes[self.leaf(k)]
        self.order[self.leaf(k)], self.buffer[self.leaf(k)] = wish.axes, k
        return Stored(wish.groups, wish.shape)

    def shape_of(self, s: Nodes) -> Ints:
        return self.wishes[s].shape if s & (s - 1) == 0 else super().shape_of(s)

    def emit(self, turns: dict[Nodes, _Turn], merges: "object") -> list[Step]:
        steps: list[Step] = []
        count = len(self.network.factors)
        for pair in self.pairs:
            both = pair[0] | pair[1]
            if not pair[0] & 1:
                steps.append(self.merge(next(merges)))  # type: ignore[call-overload]
                self.buffer[both] = count
                count += 1
                continue
            turn = turns[both]
            self.note(turn.kind, turn.left, turn.weight)
            place = {"weight": self.buffer[turn.weight], "view": self.view_of(turn.weight)}
            steps += [s if isinstance(s, Shuffle) else s._replace(**place) for s in turn.steps]  # type: ignore[arg-type]
        return steps

    def stream(self) -> tuple[dict[Nodes, _Turn], Axes]:
        """Follow the activation through its meetings; returns them and the order of its axes at the end."""
        current, turns = self.app.inputs, {}
        pairs = [p for p in self.pairs if p[0] & 1]
        for n, (left, right) in enumerate(pairs):
            after = pairs[n + 1] if n + 1 < len(pairs) else None
            turn = _Turn(right, left)
            current = (self.convolve if self.windows else self.multiply)(turn, current, after)
            turns[left | right] = turn
        return turns, current

    def parts(self, current: Axes, right: Nodes, both: Nodes) -> tuple[Axes, Axes, Axes, Axes]:
        """Spectators, kept, gone and new axes of a meeting, the first three in the activation's order."""
        weight, out = self.graph.axes(right), self.graph.channels(both)
        spectators = tuple(a for a in current if a not in weight)
        kept = tuple(a for a in current if a in weight and a in out)
        gone = tuple(a for a in current if a in weight and a not in out)
        new = tuple(a for a in weight if a not in current and a not in self.windows)
        return spectators, kept, gone, new

    def shuffle(self, current: Axes, wanted: Axes) -> Shuffle:
        return Shuffle(self.sizes(current), tuple(current.index(a) for a in wanted))

    def multiply(self, turn: _Turn, current: Axes, after: Pair | None) -> Axes:
        """A meeting without sliding axes: channels are the last axis of the activation."""
        spectators, kept, gone, new = self.parts(current, turn.weight, turn.left | turn.weight)
        if kept:
            return self.batched(
                turn, current, (spectators, kept, gone, self.arranged(new, after, (*spectators, *kept), ()))
            )
        start = current.index(gone[0]) if gone else len(current)
        if current[start : start + len(gone)] != gone:
            turn.steps.append(self.shuffle(current, (*spectators, *gone)))
            start = len(spectators)
        pre, post = spectators[:start], spectators[start:]
        new = self.arranged(new, after, pre, post)
        turn.kind = "linear"
        self.wishes[turn.weight] = Wish((new, gone), (self.numel(new), self.numel(gone)))
        turn.steps.append(Linear(-1, View(), self.numel(pre), self.numel(gone), self.numel(post)))
        return (*pre, *new, *post)

    def batched(self, turn: _Turn, current: Axes, parts: tuple[Axes, Axes, Axes, Axes]) -> Axes:
        spectators, kept, gone, new = parts
        if current != (*spectators, *kept, *gone):
            turn.steps.append(self.shuffle(current, (*spectators, *kept, *gone)))
        s, k, g, n = (self.numel(x) for x in parts)
        turn.kind = "batched linear"
        self.wishes[turn.weight] = Wish((kept, gone, new), (k, g, n))
        turn.steps.append(Batched(-1, View(), s, k, g, n))
        return (*spectators, *kept, *new)

    def arranged(self, new: Axes, after: Pair | None, pre: Axes, post: Axes) -> Axes:
        """The new axes in the order that spares the next meeting a permutation.

        The next meeting wants the axes that it contracts side by side: if some of them stand before the new
        ones, those among the new come first, otherwise last. After the last meeting the outputs' order holds.
        """
        if after is None:
            return tuple(sorted(new, key=self.app.outputs.index))
        weight, out = self.graph.axes(after[1]), self.graph.channels(after[0] | after[1])
        met = [a for a in new if a in weight]
        if self.windows:
            return tuple(sorted(new, key=lambda a: (a in met, a in met and a not in out)))
        first = bool(pre) and pre[-1] in weight
        return tuple(sorted(new, key=lambda a: (a in met) != first))

    def convolve(self, turn: _Turn, current: Axes, after: Pair | None) -> Axes:
        """A meeting in a convolutional layer; spectators are folded into the batch, kept axes are groups."""
        spectators, kept, gone, new = self.parts(current, turn.weight, turn.left | turn.weight)
        if current != (*spectators, *kept, *gone):
            turn.steps.append(self.shuffle(current, (*spectators, *kept, *gone)))
        new = self.arranged(new, after, (), ())
        slides = tuple(a for a in self.windows if a in self.graph.axes(turn.weight))
        taps = tuple(self.network.size_of[a] if a in slides else 1 for a in self.windows)
        s, k, g, n = (self.numel(x) for x in (spectators, kept, gone, new))
        self.wishes[turn.weight] = Wish(
            (kept + new, gone, *((a,) if a in slides else () for a in self.windows)), (k * n, g, *taps)
        )
        turn.kind = _conv_kind(k, g, n, taps)
        turn.steps.append(self.conv_step((s, k, g, n), slides))
        return (*spectators, *kept, *new)

    def conv_step(self, sizes: tuple[int, int, int, int], slides: Axes) -> Conv:
        spectators, kept, gone, new = sizes
        windows = [w if a in slides else Window() for a, w in self.app.windows]
        padded = [w.mode != "zeros" or w.before != w.after for w in windows]
        pad = [
            n
            for w, p in zip(windows[::-1], padded[::-1], strict=True)
            for n in ((w.before, w.after) if p else (0, 0))
        ]
        modes = {w.mode for w, p in zip(windows, padded, strict=True) if p and w.before + w.after}
        return Conv(
            weight=-1,
            view=View(),
            spectators=spectators,
            channels=kept * gone,
            out=spectators * kept * new,
            pad=tuple(pad) if any(pad) else (),
            pad_mode="constant" if modes <= {"zeros"} else modes.pop(),
            stride=tuple(w.stride for w in windows),
            padding=tuple(0 if p else w.before for w, p in zip(windows, padded, strict=True)),
            dilation=tuple(w.dilation for w in windows),
            groups=kept,
        )


def _makes_all(step: Step) -> bool:
    """Whether the step makes all output channels in one piece, so that it can add the bias."""
    if isinstance(step, Linear):
        return step.pre * step.post == 1
    return isinstance(step, Conv) and step.spectators == 1


def _conv_kind(kept: int, gone: int, new: int, taps: Ints) -> str:
    size = "x".join(str(t) for t in taps)
    if kept == 1:
        return size
    return f"depthwise {size}" if gone == new == 1 else f"grouped {size}"
