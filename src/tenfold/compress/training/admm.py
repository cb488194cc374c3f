"""ADMM: weights that a given format and given ranks can hold with little loss."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from tenfold.compress.opening import open_
from tenfold.compress.plan import Plan
from tenfold.compress.training.alternate import (
    Choose,
    Induced,
    Learn,
    Round,
    Schedule,
    State,
    alternate,
    first,
)
from tenfold.compress.training.record import Record
from tenfold.core.atomic import StrPath
from tenfold.core.errors import SelectionError


def admm_(
    model: nn.Module,
    plan: Plan,
    learn: Learn,
    *,
    rho: float = 0.1,
    growth: float = 1.2,
    rounds: int = 20,
    tol: float = 1e-2,
    seed: int = 0,
    generators: Sequence[torch.Generator] = (),
    resume: StrPath | None = None,
    progress: Callable[[Round], object] | None = None,
) -> Induced:
    """Train a dense model in place until its weights are nearly of the format and ranks of the plan.

    Minimises the loss subject to every planned weight being one that its format can hold, for any plan:

        W = argmin loss(W) + rho/2 ‖W - Z + U‖²,    Z = the format's nearest to W + U,    U = U + W - Z

    `learn` does the first step, and knows the loss; the others take the methods of the plan. The model stays
    dense. Afterwards `apply_(model, plan)` loses little, for little is cut off, and tuning does the rest.
    Worth it for formats that lose much in one step, such as tensor trains; it takes a training's time.
    If the plan names a metric, it counts in `apply_` alone, with statistics of the trained model.

    Args:
        learn: called as `learn(model, penalty, round)`, to train the model for an epoch or a few with the
            penalty added to its loss: `tune(model, train, epochs=1, penalty=penalty)`. Give `tune` no
            validation data, for the best weights without the penalty would be those that it began with.
        rho: strength of the pull, relative to the loss; `Round.gap` should fall from round to round. Where
            it does not, take more; where the loss rises, take less, or begin with less and let it grow.
        growth: rho is multiplied by it after every round; 1 keeps it.
        tol: stop when the gap ‖W - Z‖ / ‖W‖ is no larger.
        seed: of the methods that draw.
        generators: what else `learn` draws from, such as that of a data loader: kept with `resume`.
        resume: a file for the state after every round. If it is there, the run goes on from it, with what an
            uninterrupted one would have given. Give the model as at the start, or as training left it.
        progress: called with each new `Round`, of which the first, number 0, is the start.

    Raises:
        OptionError: for an option outside its range.
        SelectionError: if the plan is empty, or names a weight that the model has not.
        LayoutError: if a layout does not fit its weight.
        DivergedError: if a weight is not finite after learning.
        CheckpointError: if the file of `resume` is something else, or of another model or other options.

    Source: Yin, Sui, Liao & Yuan, CVPR 2021, arXiv 2107.12422; Boyd et al. 2011, section 3.1.1.

    >>> from tenfold.compress.plan import LayerPlan
    >>> from tenfold.compress.recovery.tune import tune
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(256, 6)
    >>> data = [(x, x @ torch.randn(6, 6))]
    >>> model = nn.Sequential(nn.Linear(6, 6))
    >>> plan = Plan({"0": {"weight": LayerPlan("lowrank", "o i -> o i", {"R": 2})}})
    >>> def learn(model, penalty, number):
    ...     return tune(model, data, epochs=20, lr=0.02, loss=nn.functional.mse_loss, penalty=penalty)
    >>> trace = admm_(model, plan, learn, rounds=30).trace
    >>> trace[0].gap > 0.3, trace[-1].gap < 0.05
    (True, True)
    """
    schedule = Schedule(rho, growth, rounds, tol)
    if not plan.layers:
        raise SelectionError("the plan names no weight.", "Make one: tenfold.plan(model, budget, ...).")
    open_(model, plan.layers)
    asked = {"algorithm": "admm", "layers": _layers(plan), "schedule": asdict(schedule), "seed": seed}
    return run(model, learn, lambda model, mu: plan, schedule, asked, seed, generators, resume, progress)


def _layers(plan: Plan) -> dict[str, dict[str, object]]:
    return {m: {p: layer.to_dict() for p, layer in ps.items()} for m, ps in plan.layers.items()}


def run(
    model: nn.Module,
    learn: Learn,
    choose: Choose,
    schedule: Schedule,
    asked: dict[str, object],
    seed: int,
    generators: Sequence[torch.Generator],
    resume: StrPath | None,
    progress: Callable[[Round], object] | None,
) -> Induced:
    """All rounds, from the record if there is one; the record is kept, and progress told."""
    record = None if resume is None else Record.of(Path(resume), model, generators, asked)

    def done(state: State) -> None:
        if record is not None:
            record.save(state)
        if progress is not None:
            progress(state.trace[-1])

    state = None if record is None else record.load()
    if state is None:
        state = first(model, choose, schedule.mu, seed)
        if record is not None:
            record.save(state)
        if progress is not None:
            progress(state.trace[-1])
    try:
        return alternate(model, learn, choose, schedule, state, seed, done)
    except BaseException:
        if record is not None:
            record.rewind()
        raise
