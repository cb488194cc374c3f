"""The columns of a report, as data; text, Markdown and HTML print the same ones."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from tenfold.report import numbers
from tenfold.report.numbers import known
from tenfold.report.rows import LayerLine, Row, Table

Printed = Callable[[float | None], str]


@dataclass(frozen=True)
class Cell:
    """A number as text, in relation to the dense model (`note`), exactly, and as a number to sort by."""

    text: str
    note: str = ""
    exact: str = ""
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Column:
    """One number of a row: its name there, how it prints, and how it relates to the dense model's.

    `exact` prints what a tooltip shows beside the rounded number; `phrase` goes on after the relation:
    25 % "of the parameters". The number of the dense model is its `reference` where that has another name.
    """

    name: str
    title: str
    printed: Printed
    relation: Callable[[float, float], str]
    exact: Callable[[float], str]
    meaning: str
    phrase: str = ""
    reference: str = ""

    def value(self, row: Row) -> float | None:
        """The number; `None` if it is missing or not finite."""
        return _number(row, self.name)

    def cell(self, row: Row, dense: Row) -> Cell:
        """What stands in the table; the dense model has no relation to itself."""
        value, whole = self.value(row), _number(dense, self.reference or self.name)
        if value is None:
            return Cell(numbers.MISSING)
        note = "" if row is dense or whole is None else self.relation(value, whole)
        return Cell(self.printed(value), note, self.exact(value), value)


def _number(row: Row, name: str) -> float | None:
    number: float | None = attrgetter(name)(row)
    return number if known(number) else None


def kept(value: float, whole: float) -> str:
    """The fraction kept; nothing of nothing.

    >>> kept(1, 4), kept(1, 0)
    ('25.0 %', '')
    """
    return numbers.percent(value / whole) if whole else ""


def faster(value: float, whole: float) -> str:
    """How many times as fast: times are divided the other way round.

    >>> faster(0.5, 1.0), faster(0.0, 1.0)
    ('2.0×', '')
    """
    return numbers.times(whole / value) if value else ""


def changed(value: float, whole: float) -> str:
    """The change in percentage points.

    >>> changed(0.965, 0.975)
    '−1.0'
    """
    return numbers.points(value - whole)


def _grouped(value: float) -> str:
    return f"{value:,.0f}"


def _milliseconds(value: float) -> str:
    return f"{value * 1e3:.6g} ms"


def _four_decimals(value: float) -> str:
    return f"{value * 100:.4f} %"


ACCURACY = Column(
    "accuracy",
    "Accuracy",
    numbers.percent,
    changed,
    _four_decimals,
    "final accuracy, and the change in percentage points",
    "points of accuracy",
)
BEFORE = Column(
    "accuracy_before",
    "Before tuning",
    numbers.percent,
    changed,
    _four_decimals,
    "accuracy right after compression, and the change in percentage points",
    reference="accuracy",
)
PARAMS = Column(
    "params",
    "Params",
    numbers.count,
    kept,
    _grouped,
    "stored parameters, and the fraction kept",
    "of the parameters",
)
SIZE = Column(
    "bytes",
    "Size",
    numbers.nbytes,
    kept,
    _grouped,
    "bytes of parameters and buffers, and the fraction kept",
    "of the bytes",
)
FLOPS = Column(
    "flops",
    "FLOPs",
    numbers.flops,
    kept,
    _grouped,
    "floating-point operations of one forward pass, and the fraction kept",
    "of the FLOPs",
)
LATENCY = Column(
    "seconds",
    "Latency",
    numbers.seconds,
    faster,
    _milliseconds,
    "median time of one forward pass, and the speed-up",
    "as fast",
)
MEMORY = Column(
    "peak_memory",
    "Peak memory",
    numbers.nbytes,
    kept,
    _grouped,
    "bytes alive at the peak of one forward pass, and the fraction kept",
    "of the peak memory",
)

COLUMNS = (ACCURACY, BEFORE, PARAMS, SIZE, FLOPS, LATENCY, MEMORY)


def columns_of(table: Table) -> tuple[Column, ...]:
    """Those columns in which some row has a number; parameters and accuracy always.

    >>> [column.title for column in columns_of(Table("digits", Row("dense", flops=10)))]
    ['Accuracy', 'Params', 'FLOPs']
    """
    rows = (table.dense, *table.rows)
    always = (PARAMS, ACCURACY)
    return tuple(c for c in COLUMNS if c in always or any(c.value(row) is not None for row in rows))


def has_budgets(table: Table) -> bool:
    """Whether some row names its budget."""
    return any(row.keep for row in (table.dense, *table.rows))


def ranks_of(line: LayerLine) -> str:
    """The ranks on one line.

    >>> ranks_of(LayerLine("conv1.weight", ranks={"r0": 16, "r1": 8}))
    'r0=16 r1=8'
    """
    return " ".join(f"{bond}={size}" for bond, size in line.ranks.items())


def params_kept(line: LayerLine) -> str:
    """The fraction of a layer's parameters that is kept, if known.

    >>> params_kept(LayerLine("conv1.weight", params_before=400, params_after=100))
    '25.0 %'
    """
    if line.params_before is None or line.params_after is None:
        return ""
    return kept(line.params_after, line.params_before)
