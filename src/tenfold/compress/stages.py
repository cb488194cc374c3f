"""Compression in stages: a little, tuning, a little more, each time from the dense projection of the last."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tenfold.compress.densify import to_dense_
from tenfold.compress.pipeline import Compressed
from tenfold.compress.plan import Plan
from tenfold.compress.stage_files import Files, StageResult, State, files_in
from tenfold.core.atomic import StrPath
from tenfold.core.errors import BudgetError, OptionError
from tenfold.ranks import Budget


@dataclass(frozen=True)
class Stage:
    """What the tuning of a stage is told.

    `number` counts from 1 to `count`; `resume` is a file for the state of its own, None without a folder:
    give it to `tune(resume=stage.resume)`.
    """

    number: int
    count: int
    budget: Budget
    resume: Path | None


class Staged(NamedTuple):
    """The model of the last stage, its plan, and what every stage gave."""

    model: nn.Module
    plan: Plan
    stages: tuple[StageResult, ...]


def geometric(budget: Budget, count: int) -> tuple[Budget, ...]:
    """Budgets of so many stages that lead to `budget`, each keeping the same fraction of the one before.

    Raises:
        BudgetError: if the budget is not a fraction.
        OptionError: unless count >= 1.

    >>> [round(stage.amount, 3) for stage in geometric(Budget(params=0.125), 3)]
    [0.5, 0.25, 0.125]
    """
    if not isinstance(count, int) or count < 1:
        raise OptionError(f"{count} stages were asked for.", "Give 1 or more; two to five are usual.")
    if not all(isinstance(amount, float) for amount in budget.amounts.values()):
        raise BudgetError(
            f"{budget} came, which is a number where a fraction is needed.",
            "Give the fraction to keep, or the budget of every stage.",
        )
    return (*(_power(budget, k / count) for k in range(1, count)), budget)


def _power(budget: Budget, exponent: float) -> Budget:
    return replace(budget, **{unit: amount**exponent for unit, amount in budget.amounts.items()})


def compress_in_stages(
    model: nn.Module,
    budgets: Sequence[Budget],
    compress: Callable[[nn.Module, Budget], Compressed],
    tune: Callable[[nn.Module, Stage], object],
    *,
    evaluate: Callable[[nn.Module], float] | None = None,
    folder: StrPath | None = None,
    generators: Sequence[torch.Generator] = (),
    progress: Callable[[StageResult], object] | None = None,
) -> Staged:
    """Compress, tune, compress further, tune, and so on; the model itself is not changed.

    Every stage begins with the dense projection of the tuned model before it (`to_dense_`), so that factors
    never stack and formats, layouts and sites may change from stage to stage. Budgets are all relative to the
    dense model, and fall. Small steps let tuning repair a little damage at a time, and leave a model for
    every budget. Compare with one step that is tuned for as long in all, which can be as good.

    Args:
        budgets: one for each stage; `geometric(Budget(params=0.1), 3)` makes three.
        compress: called as `compress(model, budget)`: `partial(tenfold.compress.compress, example=x)` with
            more options at will. Give it `data`, not `statistics`: those of the first model are stale later.
        tune: called as `tune(model, stage)` with the compressed model, to train it in place.
        evaluate: a metric to note after compressing and after tuning each stage.
        folder: a folder of its own for the state of the run, new or of a run that was killed, which goes on
            with the stage at hand: it is not compressed again, and its tuning goes on if `tune` uses
            `stage.resume`. There is one file a stage; no other file in the folder is touched.
        generators: what `tune` draws from besides torch's own generator, such as that of a data loader: kept
            in the folder.
        progress: called after each stage.

    Raises:
        BudgetError: if there are no budgets, or they are not in one unit, or do not fall.
        CheckpointError: if the folder holds another run.
        TargetError: if the folder cannot be written.

    Source: iterative compression with projection back: Liebenwein et al. 2021 (ALDS, arXiv 2107.11442),
    section 3.2; stages of compression and tuning: Gusak et al. 2019 (MUSCO, arXiv 1903.09973).

    >>> from functools import partial
    >>> import torch
    >>> from tenfold.compress import compress
    >>> net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
    >>> make = partial(compress, example=torch.zeros(1, 32), preset="weight_svd")
    >>> staged = compress_in_stages(net, geometric(Budget(params=0.25), 2), make, lambda model, stage: None)
    >>> [stage.plan.layers["0"]["weight"].ranks for stage in staged.stages]
    [{'R': 10}, {'R': 5}]
    """
    _check(budgets)
    dense = deepcopy(model)
    to_dense_(dense)
    files = None if folder is None else files_in(folder, dense, budgets, generators)
    run = _Run(tuple(budgets), compress, tune, evaluate, files)
    state = State(dense, (), None) if files is None else files.load()
    while len(state.done) < len(budgets):
        state = _stage(run, state)
        if progress is not None:
            progress(state.done[-1])
    return Staged(state.model, state.done[-1].plan, state.done)


@dataclass(frozen=True)
class _Run:
    """All that a run needs."""

    budgets: tuple[Budget, ...]
    compress: Callable[[nn.Module, Budget], Compressed]
    tune: Callable[[nn.Module, Stage], object]
    evaluate: Callable[[nn.Module], float] | None
    files: Files | None

    def metric(self, model: nn.Module) -> float | None:
        """What the caller measures, if anything."""
        return None if self.evaluate is None else float(self.evaluate(model))

    def save(self, state: State) -> None:
        """Note the state in the folder, if there is one."""
        if self.files is not None:
            self.files.save(state)


def _stage(run: _Run, state: State) -> State:
    """One stage from where it is to its end."""
    if state.begun is None:
        state = _compressed(run, state)
        run.save(state)
    assert state.begun is not None
    number, budget = state.begun.number, state.begun.budget
    resume = None if run.files is None else run.files.tuning(number)
    run.tune(state.model, Stage(number, len(run.budgets), budget, resume))
    result = replace(state.begun, tuned=run.metric(state.model))
    state = State(state.model, (*state.done, result), None)
    run.save(state)
    return state


def _compressed(run: _Run, state: State) -> State:
    """The dense projection of the last stage, compressed to the next budget."""
    budget = run.budgets[len(state.done)]
    projected = deepcopy(state.model)
    to_dense_(projected)
    model, plan, _ = run.compress(projected, budget)
    parameters = sum(p.numel() for p in model.parameters())
    begun = StageResult(len(state.done) + 1, budget, plan, parameters, run.metric(model), None)
    return State(model, state.done, begun)


def _check(budgets: Sequence[Budget]) -> None:
    if isinstance(budgets, Budget) or not budgets:
        raise BudgetError(
            f"{budgets} came, where the budgets of all stages are wanted.",
            "Give one for each stage: geometric(Budget(params=0.1), 3).",
        )
    if len({tuple((u, type(a)) for u, a in budget.amounts.items()) for budget in budgets}) > 1:
        raise BudgetError(
            f"the stages have budgets of different kinds: {', '.join(map(repr, budgets))}.",
            "Give all in the same units, and all as fractions or all as numbers.",
        )
    columns = zip(*(budget.amounts.values() for budget in budgets), strict=True)
    falls = (amounts == tuple(sorted(amounts, reverse=True)) for amounts in columns)
    if not all(falls):
        raise BudgetError(
            f"the budgets of the stages rise somewhere: {', '.join(map(repr, budgets))}.",
            "Give them in falling order: what is lost in a stage does not come back.",
        )
