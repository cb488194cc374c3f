"""The program of a layer: every permutation, reshape and kernel size as plain ints."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from tenfold.core.cost import Cost
from tenfold.core.merging import Lowering, Wish
from tenfold.core.network import Axes
from tenfold.core.node_sets import Nodes, Pair
from tenfold.core.program import (
    Batched,
    Conv,
    Ints,
    Linear,
    Program,
    Shuffle,
    Step,
    Stored,
    Transposed,
    View,
)
from tenfold.core.search import Application, Graph, Window, search


@lru_cache(maxsize=4096)
def lower(app: Application, cost: Cost | None = None) -> Program:
    """The program of a layer; its factors are stored in the order in which the steps want them.

    Of linear layers' orders that cost the same, one that shuffles nothing, and then one that meets a factor
    from the left early: that factor's gradient is formed for each row, while the activation is kept.
    """
    if app.windows:
        return _Layer(app, search(app, cost)).program()
    orders = dict.fromkeys(search(app, cost, last_first) for last_first in (True, False))
    return min((_Layer(app, order).program() for order in orders), key=_detours)


def _detours(program: Program) -> tuple[int, int]:
    """Shuffles, and the elements in a row of activations that meet a factor from the left."""
    shuffles = sum(isinstance(step, Shuffle) for step in program.steps)
    linear = [step for step in program.steps if isinstance(step, Linear)]
    return shuffles, sum(step.pre * step.gone * step.post for step in linear if step.post > 1)


@dataclass
class _Turn:
    """One meeting of the activation with a weight, before buffers are numbered."""

    weight: Nodes
    left: Nodes
    steps: list[Step] = field(default_factory=list)
    kind: str = ""


class _Layer(Lowering):
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

    def emit(self, turns: dict[Nodes, _Turn], merges: Iterator[Pair]) -> list[Step]:
        """All steps in the order of execution, with the numbers of the buffers that they take."""
        steps: list[Step] = []
        count = len(self.network.factors)
        for pair in self.pairs:
            both = pair[0] | pair[1]
            if not pair[0] & 1:
                steps.append(self.merge(next(merges)))
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
        """A meeting in a convolutional layer; spectators and kept axes are groups.

        Where the weight carries no spatial axis, a transposed layer runs a convolution of one tap.
        """
        spectators, kept, gone, new = self.parts(current, turn.weight, turn.left | turn.weight)
        if current != (*spectators, *kept, *gone):
            turn.steps.append(self.shuffle(current, (*spectators, *kept, *gone)))
        new = self.arranged(new, after, (), ())
        slides = tuple(a for a in self.windows if a in self.graph.axes(turn.weight))
        taps = tuple(self.network.size_of[a] if a in slides else 1 for a in self.windows)
        s, k, g, n = sizes = tuple(self.numel(x) for x in (spectators, kept, gone, new))
        spread = any(self.windows[a].transposed for a in slides)
        rows, columns = (kept + gone, new) if spread else (kept + new, gone)
        self.wishes[turn.weight] = Wish(
            (rows, columns, *((a,) if a in slides else () for a in self.windows)),
            (self.numel(rows), self.numel(columns), *taps),
        )
        turn.kind = _conv_kind(s * k, g, n, taps, spread)
        turn.steps.append((self.transposed_step if spread else self.conv_step)(sizes, slides))
        return (*spectators, *kept, *new)

    def transposed_step(self, sizes: Ints, slides: Axes) -> Transposed:
        """A step that transposes the axes `slides` alone: the others have stride 1 and one tap."""
        spectators, kept, gone, new = sizes
        windows = [w if a in slides else Window() for a, w in self.app.windows]
        return Transposed(
            weight=-1,
            view=View(),
            spectators=spectators,
            channels=spectators * kept * gone,
            out=spectators * kept * new,
            axes=tuple(k for k, a in enumerate(self.windows) if a in slides),
            stride=tuple(w.stride for w in windows),
            padding=tuple(w.before for w in windows),
            output_padding=tuple(w.before - w.after for w in windows),
            dilation=tuple(w.dilation for w in windows),
            groups=spectators * kept,
        )

    def conv_step(self, sizes: Ints, slides: Axes) -> Conv:
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
            channels=spectators * kept * gone,
            out=spectators * kept * new,
            pad=tuple(pad) if any(pad) else (),
            pad_mode="constant" if modes <= {"zeros"} else modes.pop(),
            stride=tuple(w.stride for w in windows),
            padding=tuple(0 if p else w.before for w, p in zip(windows, padded, strict=True)),
            dilation=tuple(w.dilation for w in windows),
            groups=spectators * kept,
        )


def _makes_all(step: Step) -> bool:
    """Whether the step makes all output channels in one piece, so that it can add the bias."""
    if isinstance(step, Linear):
        return step.pre * step.post == 1
    return isinstance(step, Conv | Transposed)


def _conv_kind(kept: int, gone: int, new: int, taps: Ints, transposed: bool) -> str:
    size = ("transposed " if transposed else "") + "x".join(str(t) for t in taps)
    if kept == 1:
        return size
    return f"depthwise {size}" if gone == new == 1 else f"grouped {size}"
