"""One training run: epochs, passes and steps, and the record from which it can go on."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from tenfold.compress.batches import Batches
from tenfold.compress.recovery.best import Best
from tenfold.compress.recovery.objective import Losses, Objective
from tenfold.compress.recovery.options import Options
from tenfold.compress.recovery.processes import align_buffers, align_draws, averaging, share, total
from tenfold.compress.recovery.resume import Record, described, sketch
from tenfold.compress.recovery.schedule import set_rate
from tenfold.compress.recovery.trace import Epoch, Tuned
from tenfold.core.errors import DataError, DivergedError
from tenfold.measure.running import device_of


@dataclass(frozen=True)
class Run:
    """All that a run needs."""

    model: nn.Module
    train: Batches
    objective: Objective
    stepper: AcceleratedOptimizer
    accelerator: Accelerator
    best: Best
    options: Options


def trained(run: Run, record: Record | None, progress: Callable[[Epoch], object] | None) -> Tuned:
    """Go on from the record, or from the start, to the end; a run that fails leaves the weights on record."""
    trace = [] if record is None else record.load()
    try:
        return _to_the_end(run, trace, record, progress)
    except BaseException:
        if record is not None:
            record.rewind()
        raise


def _to_the_end(
    run: Run, trace: list[Epoch], record: Record | None, progress: Callable[[Epoch], object] | None
) -> Tuned:
    own = Losses(run.model, run.objective, device_of(run.model))
    losses = averaging(run.accelerator, own, run.objective.uses_all)
    if not trace:
        run.best.offer(0)
    for number in range(len(trace) + 1, run.options.epochs + 1):
        if run.best.age(number - 1) == run.options.patience:
            break
        trace.append(_epoch(run, losses, number))
        if run.accelerator.is_main_process:
            _tell(trace, record, progress)
    run.accelerator.wait_for_everyone()
    return Tuned(tuple(trace), run.best.kept(len(trace)), len(trace) < run.options.epochs)


def _tell(trace: list[Epoch], record: Record | None, progress: Callable[[Epoch], object] | None) -> None:
    if record is not None:
        record.save(trace)
    if progress is not None:
        progress(trace[-1])


def _epoch(run: Run, losses: nn.Module, number: int) -> Epoch:
    start, options = perf_counter(), run.options
    set_rate(run.stepper, options.schedule, (number - 1) / options.epochs)
    align_draws(run.accelerator, generators_of(run.train))
    train_loss = _pass(run, losses, number)
    if run.best.valid is None:
        _check_weights(run.model, number)
    align_buffers(run.accelerator, run.model)
    valid_loss, valid_accuracy = run.best.offer(number)
    return Epoch(number, train_loss, valid_loss, valid_accuracy, perf_counter() - start)


def _pass(run: Run, losses: nn.Module, number: int) -> float:
    """One step a batch; the mean loss over all labels, or over all inputs where there are none."""
    summed, count, steps = 0.0, 0, 0
    run.model.train()
    for batch in share(run.accelerator, run.train):
        weight = run.objective.weight(batch)
        summed, count = summed + _step(run, losses, batch, number) * weight, count + weight
        steps += 1
    run.stepper.zero_grad()
    summed, seen, taken = total(run.accelerator, summed, count, steps)
    return summed / _seen(seen, taken, number)


def _step(run: Run, losses: nn.Module, batch: Any, number: int) -> float:
    with run.accelerator.autocast():
        loss = losses(batch)
    value = _finite(loss.item(), number)
    run.stepper.zero_grad()
    run.accelerator.backward(loss)
    if run.options.clip is not None:
        run.accelerator.clip_grad_norm_(run.model.parameters(), run.options.clip)
    run.stepper.step()
    return value


def generators_of(train: object) -> tuple[torch.Generator, ...]:
    """What draws the order of the batches: `train.generator`, and that of the `batches` which it wraps.

    >>> from types import SimpleNamespace as Loader
    >>> len(generators_of(Loader(generator=None, batches=Loader(generator=torch.Generator()))))
    1
    """
    generator, inner = getattr(train, "generator", None), getattr(train, "batches", None)
    own = (generator,) if isinstance(generator, torch.Generator) else ()
    return own if inner is None else own + generators_of(inner)


def record_of(run: Run, optimizer: torch.optim.Optimizer, path: Path) -> Record:
    """The state of the run, to be kept at `path`."""
    teacher = run.objective.teacher
    starts = sketch(run.model.state_dict()), {} if teacher is None else sketch(teacher.state_dict())
    scaler, generators = run.accelerator.scaler, generators_of(run.train)
    return Record(path, run.model, optimizer, scaler, generators, run.best, _asked(run, optimizer), *starts)


def _asked(run: Run, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What has to be the same when a run goes on."""
    teacher = run.objective.teacher
    groups = [{k: repr(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    functions = {name: True for name in ("loss", "forward", "penalty") if getattr(run.objective, name)}
    return (
        asdict(run.options)
        | functions
        | {
            "model": described(run.model),
            "optimizer": {"type": type(optimizer).__qualname__, "groups": groups},
            "teacher": None if teacher is None else described(teacher),
            "distillation": None if teacher is None else asdict(run.objective.distillation),
            "validation": run.best.valid is not None,
            "generators": len(generators_of(run.train)),
            "processes": run.accelerator.num_processes,
        }
    )


def _finite(loss: float, number: int) -> float:
    if not isfinite(loss):
        raise DivergedError(
            f"The training loss became {loss} in epoch {number}.",
            "Use a smaller learning rate (lr), and check that the inputs are finite and normalized.",
        )
    return loss


def _check_weights(model: nn.Module, number: int) -> None:
    """The last step of an epoch may spoil weights that no loss shows."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise DivergedError(
                f"'{name}' holds NaN or infinite entries after epoch {number}.",
                "Use a smaller learning rate (lr), or clip the gradients (clip=1.0).",
            )


def _seen(count: float, steps: float, number: int) -> float:
    if count == 0 and steps:
        raise DataError(
            f"No label of the training data counts in epoch {number}: all are -100.",
            "Look at how the labels are padded or masked; those of -100 are left out of the loss.",
        )
    if count == 0:
        raise DataError(
            f"The training data gave no batches in epoch {number}.",
            "Pass a list or DataLoader of (inputs, labels); a generator can be read only once.",
        )
    return count
