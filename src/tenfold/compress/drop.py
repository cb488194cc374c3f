"""The dual of a budget: the smallest model that is as good as is asked."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from tenfold.compress.pipeline import Compressed
from tenfold.core.errors import BudgetError, DataError, OptionError
from tenfold.ranks import Budget
from tenfold.ranks.budget import UNITS, Unit

CLOSE = 1.01
"""Budgets closer than this are one."""


@dataclass(frozen=True)
class DropTrial:
    """One budget that was tried: the metric of its model, and whether it holds. None: no plan meets it.

    A metric of NaN or -∞ is that of a spoilt model, which does not hold.
    """

    keep: float
    metric: float | None
    holds: bool


@dataclass(frozen=True)
class Within:
    """The smallest model that was measured to hold, its budget, and all that was tried, in order.

    `dense` and `metric` are what `evaluate` says of the model and of the smaller one.
    """

    compressed: Compressed
    budget: Budget
    dense: float
    metric: float
    trials: tuple[DropTrial, ...]

    @property
    def drop(self) -> float:
        """By how much the metric fell."""
        return self.dense - self.metric


def compress_within(
    model: nn.Module,
    max_drop: float,
    evaluate: Callable[[nn.Module], float],
    compress: Callable[[Budget], Compressed],
    *,
    unit: Unit = "params",
    evaluations: int = 8,
    least: float = 0.02,
    progress: Callable[[DropTrial], object] | None = None,
) -> Within:
    """The smallest model whose metric is at most `max_drop` below that of `model`.

    `evaluate` says how good a model is, the larger the better, such as its accuracy as a fraction: half a
    point is then a drop of 0.005. `compress` makes the model for a budget, such as `partial(tenfold.compress,
    model, example=x, metric=..., statistics=...)`: collect the statistics once, before. It may tune, too.

    The fraction to keep is searched for by bisection of its logarithm between `least` and 1, with so many
    `evaluations` of smaller models at most: eight find it to 2 %. A larger budget is taken to be at least as
    good as a smaller one. Where noise belies that, the result may not be the smallest, but it always is one
    that was measured to hold. A plan that comes twice is measured once. If no smaller model holds, the one of
    the budget 1.0 is tried, which most rules leave dense.

    Args:
        unit: in which the model shall be small: params, flops, bytes or latency.
        least: the smallest fraction of interest.
        progress: called after every trial.

    Raises:
        OptionError: for an option outside its range.
        DataError: if `evaluate` gives something that is no finite number. Of a smaller model it may be NaN
            or -∞, and that model does not hold.
        BudgetError: if not even the budget 1.0 holds.

    >>> from functools import partial
    >>> import torch
    >>> import tenfold
    >>> _ = torch.manual_seed(0)
    >>> net, x = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4)), torch.randn(64, 30)
    >>> expected = net(x).detach()
    >>> def likeness(small): return 1 - (small(x) - expected).detach().norm() / expected.norm()
    >>> make = partial(tenfold.compress, net, example=x, preset="weight_svd")
    >>> found = compress_within(net, 0.5, likeness, make)
    >>> bool(found.drop <= 0.5), 0.5 < found.budget.amount < 0.9
    (True, True)
    """
    _check(max_drop, unit, evaluations, least)
    dense = _measured(evaluate, model)
    search = _Search(evaluate, compress, unit, dense - max_drop, progress)
    low, high = least, 1.0
    while search.count < evaluations and high / low > CLOSE:
        keep = float(f"{math.sqrt(low * high):.5g}")
        low, high = (low, keep) if search.holds(keep) else (keep, high)
    if search.best is None and not search.holds(1.0):
        raise BudgetError(
            f"even the budget {unit}=1.0 does not hold: the metric falls from {dense:.6g} to "
            f"{search.trials[-1].metric:.6g}, by more than max_drop={max_drop:g}.",
            "Allow a larger drop, or use a `compress` that recovers more.",
        )
    assert search.best is not None
    compressed, keep, metric = search.best
    return Within(compressed, Budget(**{unit: keep}), dense, metric, tuple(search.trials))


class _Search:
    """What was tried, and the smallest model that holds; the others are let go."""

    def __init__(
        self,
        evaluate: Callable[[nn.Module], float],
        compress: Callable[[Budget], Compressed],
        unit: Unit,
        wanted: float,
        progress: Callable[[DropTrial], object] | None,
    ) -> None:
        self.evaluate, self.compress, self.unit, self.wanted = evaluate, compress, unit, wanted
        self.progress = progress
        self.trials: list[DropTrial] = []
        self.best: tuple[Compressed, float, float] | None = None
        self.count = 0
        self._known: list[tuple[object, float]] = []

    def holds(self, keep: float) -> bool:
        """Whether the model of this budget is good enough; one that cannot be met is not."""
        try:
            compressed = self.compress(Budget(**{self.unit: keep}))
        except BudgetError:
            if keep == 1.0:
                raise
            return self._noted(DropTrial(keep, None, False))
        metric = self._metric(compressed)
        if holds := metric >= self.wanted:
            self.best = compressed, keep, metric
        return self._noted(DropTrial(keep, metric, holds))

    def _metric(self, compressed: Compressed) -> float:
        layers = compressed.plan.layers
        for known, metric in self._known:
            if known == layers:
                return metric
        metric = _measured(self.evaluate, compressed.model, spoilt=True)
        self.count += 1
        self._known.append((layers, metric))
        return metric

    def _noted(self, trial: DropTrial) -> bool:
        self.trials.append(trial)
        if self.progress is not None:
            self.progress(trial)
        return trial.holds


def _check(max_drop: float, unit: str, evaluations: int, least: float) -> None:
    ranges = {
        f"a finite max_drop >= 0, got {max_drop!r}": _is_number(max_drop) and 0 <= max_drop < math.inf,
        f"a unit of {', '.join(UNITS)}, got {unit!r}": unit in UNITS,
        f"evaluations >= 1, got {evaluations!r}": evaluations >= 1,
        f"least in (0, 1), got {least!r}": _is_number(least) and 0 < least < 1,
    }
    for wanted, met in ranges.items():
        if not met:
            raise OptionError(f"The search for a budget needs {wanted}.", "See the docstring.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _measured(evaluate: Callable[[nn.Module], float], model: nn.Module, spoilt: bool = False) -> float:
    """What `evaluate` says of the model: a finite number, or NaN or -∞ if it may be `spoilt`."""
    value = evaluate(model)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if number == math.inf or not (spoilt or math.isfinite(number)):
        raise DataError(
            f"evaluate gave {value!r}, which is no finite number.",
            "Let it return how good the model is, such as its accuracy.",
        )
    return number
