"""Accuracy against size as places on a page: what the template draws, one view for each kind of size."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.report import numbers
from tenfold.report.axis import Axis, accuracy_axis, sizes_axis
from tenfold.report.columns import FLOPS, LATENCY, PARAMS, SIZE, Column
from tenfold.report.rows import Row, Table

SIZES = (PARAMS, SIZE, FLOPS, LATENCY)
COLOURS = 8

# Outlines around the origin, about 12 units across: circle, square, triangle, diamond, and so on.
SHAPES = (
    "M-5.5,0a5.5,5.5 0 1,0 11,0a5.5,5.5 0 1,0 -11,0z",
    "M-5,-5H5V5H-5z",
    "M0,-6.5L6.2,4.6H-6.2z",
    "M0,-7L6.4,0L0,7L-6.4,0z",
    "M0,6.5L6.2,-4.6H-6.2z",
    "M-2.1,-6.2H2.1V-2.1H6.2V2.1H2.1V6.2H-2.1V2.1H-6.2V-2.1H-2.1z",
    "M0,-6.8L6.5,-2.1L4,5.5H-4L-6.5,-2.1z",
    "M-6,-3.2L-3.2,-6L0,-2.8L3.2,-6L6,-3.2L2.8,0L6,3.2L3.2,6L0,2.8L-3.2,6L-6,3.2L-2.8,0z",
)


@dataclass(frozen=True)
class Mark:
    """A label at a place on an axis."""

    place: float
    label: str
    minor: bool = False


@dataclass(frozen=True)
class Point:
    """A row in a view; `row` counts from 0 over the variants and is -1 for the dense model."""

    row: int
    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Series:
    """The points of one method, from small to large. `colour` and `shape` tell it from the others."""

    method: str
    colour: int
    shape: str
    points: tuple[Point, ...]

    @property
    def segments(self) -> tuple[tuple[Point, Point], ...]:
        """Neighbours, to be joined by lines."""
        return tuple(zip(self.points, self.points[1:], strict=False))


@dataclass(frozen=True)
class View:
    """The plot over one kind of size, on one scale."""

    name: str
    title: str
    scale: str
    marks: tuple[Mark, ...]
    series: tuple[Series, ...]
    dense: Point | None


@dataclass(frozen=True)
class Plot:
    """All views share the axis of accuracies, and the line of the dense model's accuracy."""

    views: tuple[View, ...]
    marks: tuple[Mark, ...]
    dense_y: float | None


def plot_of(table: Table) -> Plot | None:
    """The places of everything in the plot; `None` if no variant has both an accuracy and a size.

    >>> dense, small = Row("dense", "", 100, accuracy=0.9), Row("tt", "", 50, accuracy=0.8)
    >>> [(view.name, view.scale) for view in plot_of(Table("digits", dense, (small,))).views]
    [('params', 'log'), ('params', 'linear')]
    >>> plot_of(Table("digits", Row("dense"))) is None
    True
    """
    shown = [column for column in SIZES if any(_drawable(row, column) for row in table.rows)]
    if not shown:
        return None
    accuracies = [row.best_known_accuracy for row in (table.dense, *table.rows)]
    vertical = accuracy_axis(value for value in accuracies if numbers.known(value))
    views = tuple(_view(table, column, vertical, log) for column in shown for log in (True, False))
    dense = table.dense.best_known_accuracy
    return Plot(
        views, _accuracy_marks(vertical), 100 - vertical.place(dense) if numbers.known(dense) else None
    )


def methods_of(table: Table) -> tuple[tuple[str, int, str], ...]:
    """Each method with its colour and outline, in the order of the rows; 64 look different.

    >>> [(name, colour) for name, colour, _ in methods_of(Table("", Row("dense"), (Row("tt"), Row("cp"))))]
    [('tt', 0), ('cp', 1)]
    """
    names = dict.fromkeys(row.method for row in table.rows)
    return tuple(
        (name, n % COLOURS, SHAPES[(n + n // COLOURS) % len(SHAPES)]) for n, name in enumerate(names)
    )


def _drawable(row: Row, column: Column) -> bool:
    size = column.value(row)
    return size is not None and size > 0 and numbers.known(row.best_known_accuracy)


def _view(table: Table, column: Column, vertical: Axis, log: bool) -> View:
    everything = (table.dense, *table.rows)
    horizontal = sizes_axis([column.value(row) or 0.0 for row in everything if _drawable(row, column)], log)
    points = [
        _point(n - 1, row, column, horizontal, vertical)
        for n, row in enumerate(everything)
        if _drawable(row, column)
    ]
    return View(
        column.name,
        column.title,
        "log" if log else "linear",
        _size_marks(column, horizontal),
        _series(table, points),
        next((point for point in points if point.row < 0), None),
    )


def _point(number: int, row: Row, column: Column, horizontal: Axis, vertical: Axis) -> Point:
    size, accuracy = column.value(row) or 0.0, row.best_known_accuracy or 0.0
    name = f"{row.method}, {row.keep}" if row.keep else row.method
    label = f"{name}: {column.title} {column.printed(size)}, accuracy {numbers.percent(accuracy)}"
    return Point(number, horizontal.place(size), round(100 - vertical.place(accuracy), 2), label)


def _series(table: Table, points: Sequence[Point]) -> tuple[Series, ...]:
    variants = sorted((point for point in points if point.row >= 0), key=lambda point: point.x)
    return tuple(
        Series(name, colour, shape, tuple(p for p in variants if table.rows[p.row].method == name))
        for name, colour, shape in methods_of(table)
    )


def _size_marks(column: Column, axis: Axis) -> tuple[Mark, ...]:
    return tuple(
        Mark(axis.place(tick.value), numbers.short(column.printed(tick.value)), tick.minor)
        for tick in axis.ticks()
    )


def _accuracy_marks(axis: Axis) -> tuple[Mark, ...]:
    """Ticks between 0 and 1: the room at the ends may reach beyond."""
    return tuple(
        Mark(round(100 - axis.place(tick.value), 2), f"{round(tick.value * 100, 6):g} %")
        for tick in axis.ticks()
        if 0 <= tick.value <= 1
    )
