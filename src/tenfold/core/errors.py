"""The errors of tenfold: what went wrong, and what to do about it.

TenfoldError
├── LayoutError       a layout and a weight do not fit
├── RankError         ranks that a format cannot have
├── ShapeError        arrays whose shapes do not fit
├── OptionError       an option outside its range
├── WeightError       a weight that cannot be decomposed (NaN, infinite)
├── UnknownNameError  a name that is not registered
├── SelectionError    a pattern that matches no layer
├── UnsupportedError  a layer that a preset or method cannot serve
├── BudgetError       a budget that no plan can meet
├── ModelError        a model that cannot be found or built
├── DataError         a data set that cannot be read
├── CheckpointError   a checkpoint that cannot be read or does not fit
└── MissingExtraError an optional package that is not installed
"""


class TenfoldError(Exception):
    """Base class: `problem` says what was expected, what came and where; `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\n{self.remedy}" if self.remedy else self.problem


class LayoutError(TenfoldError):
    """A layout that cannot be parsed, or does not fit the weight."""


class RankError(TenfoldError, ValueError):
    """Ranks that the format cannot have."""


class ShapeError(TenfoldError, ValueError):
    """Arrays whose shapes do not fit one another."""


class OptionError(TenfoldError, ValueError):
    """An option outside its range."""


class WeightError(TenfoldError, ValueError):
    """A weight that cannot be decomposed."""


class UnknownNameError(TenfoldError, KeyError):
    """A name that is not registered."""


class SelectionError(TenfoldError):
    """A pattern that matches no layer."""


class UnsupportedError(TenfoldError):
    """A layer that a preset, format or method cannot serve."""


class BudgetError(TenfoldError):
    """A budget that no plan can meet."""


class ModelError(TenfoldError):
    """A model that cannot be found or built."""


class DataError(TenfoldError):
    """A data set that cannot be read."""


class CheckpointError(TenfoldError):
    """A checkpoint that cannot be read, or does not fit the architecture."""


class TargetError(TenfoldError):
    """A file or folder that cannot be written where it should be."""


class DivergedError(TenfoldError):
    """A training loss that is infinite or not a number."""


class MissingExtraError(TenfoldError, ImportError):
    """An optional package that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        TenfoldError.__init__(
            self,
            f"{purpose} needs the package '{package}', which is not installed.",
            f"Install it with: pip install 'tenfold[{extra}]'",
        )


class ConvergenceWarning(UserWarning):
    """An iterative method has stopped before it converged; its result is the best it had."""
