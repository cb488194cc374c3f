"""A lowered contraction order: steps of plain ints, so that a tracer sees straight-line tensor code."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from tenfold.core.network import Axes

Ints = tuple[int, ...]


class View(NamedTuple):
    """A weight brought to the order and shape of its step; empty fields where it is in place already."""

    perm: Ints = ()
    shape: Ints = ()


class Merge(NamedTuple):
    """Factor meets factor: a batched matrix product, or an outer product where no axis is contracted."""

    left: int
    right: int
    left_view: View
    right_view: View
    left_sum: int
    right_sum: int
    outer: bool
    shape: Ints


class Shuffle(NamedTuple):
    """The channel axes of the activation are put in another order."""

    shape: Ints
    perm: Ints


class Linear(NamedTuple):
    """The activation (..., pre, gone, post) meets a weight (new, gone)."""

    weight: int
    view: View
    pre: int
    gone: int
    post: int


class Batched(NamedTuple):
    """The activation (..., spectators, kept, gone) meets a weight (kept, gone, new) group by group."""

    weight: int
    view: View
    spectators: int
    kept: int
    gone: int
    new: int


class Conv(NamedTuple):
    """The activation (batch, spectators kept gone, *positions) meets a kernel (kept new, gone, *taps).

    Spectators are channel axes that the kernel does not have: it is repeated for each, as further groups.
    """

    weight: int
    view: View
    spectators: int
    channels: int
    out: int
    pad: Ints
    pad_mode: str
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int


class Transposed(NamedTuple):
    """The activation (batch, spectators kept gone, *positions) is spread by a kernel (kept gone, new, *taps).

    The step transposes the spatial axes numbered in `axes`; the others it passes by.
    """

    weight: int
    view: View
    spectators: int
    channels: int
    out: int
    axes: Ints
    stride: Ints
    padding: Ints
    output_padding: Ints
    dilation: Ints
    groups: int


class Gather(NamedTuple):
    """A weight (rows, rest) gives the rows that the indices ask for: (indices, *rest), in `shape`.

    The number of a row is the sum of index // divisor % modulus * factor over `digits`. A modulus of 0 stands
    for none: the leading digit of an index out of range so stays out of range.
    `zeroes` says that an index whose output is to be zero gets a row of zeros here; where `bagged`, the rows
    of each bag are added up.
    """

    weight: int
    view: View
    digits: tuple[tuple[int, int, int], ...]
    shape: Ints
    zeroes: bool
    bagged: bool


class Bag(NamedTuple):
    """Rows (indices, rest) are added up bag by bag: (bags, *rest), in `shape`."""

    weight: int
    view: View
    shape: Ints


Step = Merge | Shuffle | Linear | Batched | Conv | Transposed | Gather | Bag


class Line(NamedTuple):
    """One line of `Program.explain`."""

    kind: str
    meets: str
    makes: str
    flops: int
    elements: int


@dataclass(frozen=True)
class Stored:
    """How a factor is kept: groups of axes, one group for every axis of the stored array."""

    groups: tuple[Axes, ...]
    shape: Ints

    @property
    def axes(self) -> Axes:
        """All axes in the order of storage."""
        return tuple(a for g in self.groups for a in g)


@dataclass(frozen=True)
class Program:
    """Steps to run, how the factors are stored for them, and what they cost.

    `bias_last` says that the last step adds the bias itself; otherwise it is added to the result.
    `dimensions` counts the spatial axes: 0 for a linear layer, 2 for an image; `inputs` what the layer is
    called with.
    """

    steps: tuple[Step, ...]
    stored: tuple[Stored, ...]
    lines: tuple[Line, ...]
    bias_last: bool = False
    dimensions: int = 0
    inputs: int = 1

    @property
    def flops(self) -> int:
        """Floating-point operations of one call, two for each multiply-add."""
        return sum(line.flops for line in self.lines)

    @property
    def largest_intermediate(self) -> int:
        """Elements of the largest array between two steps; 0 for a single step."""
        return max((line.elements for line in self.lines[:-1]), default=0)

    @property
    def merges(self) -> bool:
        """Whether factors meet factors when the program runs."""
        return any(isinstance(s, Merge) for s in self.steps)

    @property
    def gathers(self) -> bool:
        """Whether the input is indices, with which rows of factors are looked up."""
        return any(isinstance(s, Gather) for s in self.steps)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each step is, in words: "1x1", "3x3", "depthwise 3x1", "transposed 3x3", "linear", "merge"."""
        return tuple(line.kind for line in self.lines)

    def explain(self) -> str:
        """A table of the steps with the axes that meet, FLOPs and size of the result."""
        head = ("step", "meets", "makes", "FLOPs", "elements")
        rows = [(x.kind, x.meets, x.makes, f"{x.flops:,}", f"{x.elements:,}") for x in self.lines]
        widths = [max(len(r[k]) for r in [head, *rows]) for k in range(len(head))]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in [head, *rows]
        ]
        total = f"{self.flops:,} FLOPs, largest intermediate {self.largest_intermediate:,} elements"
        return "\n".join([*lines, total])


def view(array: Any, how: View, xp: Any) -> Any:
    """`array` in the order and shape of its step."""
    if how.perm:
        array = xp.permute_dims(array, how.perm)
    return xp.reshape(array, how.shape) if how.shape else array


def merge(step: Merge, left: Any, right: Any, xp: Any) -> Any:
    """Run one merge with the array library `xp`."""
    left, right = view(left, step.left_view, xp), view(right, step.right_view, xp)
    if step.left_sum:
        left = xp.sum(left, axis=-1)
    if step.right_sum:
        right = xp.sum(right, axis=-1)
    product = left * right if step.outer else xp.matmul(left, right)
    return xp.reshape(product, step.shape)


def run(program: Program, factors: tuple[Any, ...], xp: Any) -> Any:
    """Run a program without input: the factors of a network in, the contracted array out."""
    buffers = list(factors)
    for step in program.steps:
        if isinstance(step, Merge):
            buffers.append(merge(step, buffers[step.left], buffers[step.right], xp))
        else:
            buffers.append(view(buffers[-1], View(step.perm, step.shape), xp))  # type: ignore[union-attr]
    return buffers[-1]
