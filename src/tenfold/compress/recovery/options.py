"""The numbers that tuning is asked for, checked."""

from dataclasses import dataclass
from math import inf

from tenfold.compress.recovery.objective import Loss
from tenfold.compress.recovery.processes import Precision
from tenfold.compress.recovery.schedule import SCHEDULES, Schedule
from tenfold.core.errors import OptionError

PRECISIONS = "no", "bf16", "fp16"


@dataclass(frozen=True)
class Options:
    """The numbers of a run, all within their ranges."""

    epochs: int
    lr: float
    weight_decay: float
    schedule: Schedule
    patience: int | None
    label_smoothing: float
    precision: Precision
    clip: float | None

    def __post_init__(self) -> None:
        ranges = {
            f"a whole number of epochs >= 0, got {self.epochs}": whole(self.epochs) and self.epochs >= 0,
            f"a finite lr > 0, got {self.lr}": 0 < self.lr < inf,
            f"a finite weight_decay >= 0, got {self.weight_decay}": 0 <= self.weight_decay < inf,
            f"a whole patience >= 1 or None, got {self.patience}": self.patience is None
            or (whole(self.patience) and self.patience >= 1),
            f"a schedule of {' or '.join(SCHEDULES)}, got '{self.schedule}'": self.schedule in SCHEDULES,
            f"label_smoothing in 0..1, got {self.label_smoothing}": 0 <= self.label_smoothing <= 1,
            f"a precision of {' or '.join(PRECISIONS)}, got '{self.precision}'": self.precision in PRECISIONS,
            f"clip > 0 or None, got {self.clip}": self.clip is None or self.clip > 0,
        }
        for wanted, met in ranges.items():
            if not met:
                raise OptionError(
                    f"Tuning needs {wanted}.", "The docstring of tune says what each option does."
                )


def whole(number: object) -> bool:
    """Whether it is a whole number by its type.

    >>> whole(2), whole(2.0)
    (True, False)
    """
    return hasattr(number, "__index__")


def check_smoothing(smoothing: float, loss: Loss | None) -> None:
    """Raise OptionError for a smoothing of labels that no cross-entropy sees."""
    if smoothing and loss is not None:
        raise OptionError(
            f"label_smoothing={smoothing} is of the cross-entropy, in whose place a loss was given.",
            "Smooth the labels in that loss, and leave label_smoothing at 0.",
        )
