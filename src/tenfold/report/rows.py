"""What a report is made of: a dense model, its compressed variants, and what each layer became."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from typing import Any

from tenfold.measure import Latency, Measurement


@dataclass(frozen=True)
class LayerLine:
    """What one site became. A site that stayed dense has the format "dense", and a `note` that says why.

    `error` is that of the weight which the reported model has, tuned if it is: relative to the dense weight,
    in the Frobenius norm; 0.1 is ten per cent.
    """

    site: str
    shape: tuple[int, ...] = ()
    format: str = "dense"
    layout: str = ""
    ranks: Mapping[str, int] = field(default_factory=dict)
    params_before: int | None = None
    params_after: int | None = None
    error: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One variant of a model; every number is `None` where it was not measured.

    `keep` is the budget as text, such as "params ≤ 25 %". Accuracies are fractions in [0, 1]:
    `accuracy_before` is the one before tuning, `accuracy` the final one.
    """

    method: str
    keep: str = ""
    params: int | None = None
    bytes: int | None = None
    flops: int | None = None
    latency: Latency | None = None
    peak_memory: int | None = None
    accuracy_before: float | None = None
    accuracy: float | None = None
    layers: tuple[LayerLine, ...] = ()

    @classmethod
    def of(
        cls,
        method: str,
        measurement: Measurement,
        keep: str = "",
        *,
        accuracy_before: float | None = None,
        layers: tuple[LayerLine, ...] = (),
    ) -> "Row":
        """The row of a measured model; its accuracy is that of the measurement.

        >>> Row.of("tucker2", Measurement(50, 200, 900, accuracy=0.9), "params ≤ 25 %").bytes
        200
        """
        return cls(
            method,
            keep,
            measurement.params,
            measurement.bytes,
            measurement.flops,
            measurement.latency,
            measurement.peak_memory,
            accuracy_before,
            measurement.accuracy,
            layers,
        )

    @property
    def seconds(self) -> float | None:
        """The median time of one forward pass."""
        return None if self.latency is None else self.latency.median

    @property
    def best_known_accuracy(self) -> float | None:
        """The final accuracy; the one before tuning where there was no tuning."""
        return self.accuracy_before if self.accuracy is None else self.accuracy


@dataclass(frozen=True)
class Table:
    """A dense model against its variants, with remarks, and how the numbers came about.

    `provenance` is printed as it is: {"machine": "…", "torch": "2.8.0", "seed": "0"}.
    """

    title: str
    dense: Row
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as nested dictionaries and lists, ready for JSON; numbers that are not finite are `None`.

        >>> Table("digits", Row("dense", accuracy=0.97)).to_dict()["dense"]["accuracy"]
        0.97
        """
        plain: dict[str, Any] = _plain(self)
        return plain


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {own.name: _plain(getattr(value, own.name)) for own in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bool):
        return value
    return _plain_number(value) if isinstance(value, Real) else value


def _plain_number(value: Real) -> int | float | None:
    """A number of Python's, for those of other libraries."""
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None


def smallest_within(table: Table, drop: float = 0.01) -> Row | None:
    """The variant with the fewest parameters whose accuracy is at most `drop` below that of the dense model.

    `None` if there is no such variant, or none that is smaller than the dense model.

    >>> rows = Row("tt", "", 50, accuracy=0.9), Row("cp", "", 9, accuracy=0.7)
    >>> smallest_within(Table("digits", Row("dense", "", 100, accuracy=0.9), rows)).method
    'tt'
    """
    good = [row for row in table.rows if _fewer(row, table.dense) and _within(row, table.dense, drop)]
    return min(good, key=lambda row: row.params or 0, default=None)


def _fewer(row: Row, dense: Row) -> bool:
    return row.params is not None and dense.params is not None and row.params < dense.params


def _within(row: Row, dense: Row, drop: float) -> bool:
    accuracy, whole = row.best_known_accuracy, dense.best_known_accuracy
    return accuracy is not None and whole is not None and whole - accuracy <= drop + 1e-12
