"""The work of `tenfold compress`: plan, fit, tune, measure, write."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.checkpoint import save
from tenfold.checkpoint.folder import CONTENT, PLAN, REPORT
from tenfold.cli import asked
from tenfold.cli.bars import Bars
from tenfold.cli.images import Scale
from tenfold.cli.requests import recorded
from tenfold.cli.results import checked, circumstances, costs_note, layer_lines, measurements
from tenfold.cli.tuning import shuffled, tuned
from tenfold.compress import (
    Compressed,
    LatencyTable,
    Metric,
    Plan,
    Selection,
    Statistics,
    Wanted,
    collect,
    compress,
    compress_within,
    find_sites,
    plan,
)
from tenfold.compress.apply import Progress
from tenfold.compress.pipeline import renewed
from tenfold.core.atomic import replacing_folder
from tenfold.core.errors import BudgetError
from tenfold.data import ImageBatches, ImageData
from tenfold.measure import accuracy
from tenfold.ranks import Budget, RankRule
from tenfold.report import Row, Table, write_html

TRAINED, EVALUATED = 0.9, 256


@dataclass(frozen=True, eq=False)
class Job:
    """What shall be compressed, how, and with which images; they are normalized already."""

    dense: nn.Module
    name: str
    train: ImageData
    test: ImageData | None
    scale: Scale
    example: Tensor
    budget: Budget
    preset: Wanted
    label: str
    select: Selection
    rule: RankRule
    metric: Metric | None
    correct: bool
    max_drop: float | None
    latencies: Path | None
    calibrate: int
    microbatch: int | None
    epochs: int
    lr: float
    batch_size: int
    seed: int
    has_weights: bool

    def __post_init__(self) -> None:
        if self.max_drop is not None and len(self.budget.units) > 1:
            raise BudgetError(
                f"--max-drop came with --keep in {' and '.join(self.budget.units)}.",
                "Name one of them: the smallest model is searched for in one unit.",
            )


@dataclass(frozen=True, eq=False)
class Outcome:
    """The smaller model, and what is written beside it."""

    model: nn.Module
    plan: Plan
    table: Table
    extra: dict[str, Any]


def compressed(job: Job, bars: Bars) -> Outcome:
    """All steps in order; the plan comes first, so that what cannot be done is said before long work."""
    fitted, valid = job.train.split(TRAINED, job.seed)
    seen = _sample(fitted, job)
    statistics = _statistics(job, seen, bars)
    judged = (job.test or valid).batches(EVALUATED)
    with bars.bar("Fitting") as bar:
        budget, (small, chosen, fits) = _fitted(job, valid, seen, statistics, bar.at)
    chosen = recorded(chosen, job.name, job.seed)
    before = checked(small, judged, "Testing before tuning", bars) if job.epochs else None
    _tune(job, small, fitted, valid, bars)
    costs = measurements({"dense": job.dense, job.label: small}, job.example, judged, bars)
    row = Row.of(
        job.label,
        costs[job.label],
        asked.in_words(budget),
        accuracy_before=before,
        layers=layer_lines(job.dense, chosen, renewed(fits, small, job.dense)),
    )
    dense = Row.of("dense", costs["dense"])
    table = Table(job.name, dense, (row,), _notes(job, judged), circumstances(job.seed, rule=repr(job.rule)))
    return Outcome(small, chosen, table, _extra(job, row, dense))


def _fitted(
    job: Job, valid: ImageData, seen: ImageBatches, statistics: Statistics | None, progress: Progress
) -> tuple[Budget, Compressed]:
    """The smaller model of the budget, or the smallest one that loses no more than is asked."""
    make = partial(
        compress,
        job.dense,
        example=job.example,
        preset=job.preset,
        select=job.select,
        rule=job.rule,
        metric=job.metric,
        statistics=statistics,
        latencies=LatencyTable(job.latencies),
        data=seen,
        correct=job.correct,
        seed=job.seed,
        progress=progress,
    )
    if job.max_drop is None:
        return job.budget, make(job.budget)
    held_out = valid.batches(EVALUATED)
    found = compress_within(
        job.dense, job.max_drop / 100, lambda m: accuracy(m, held_out), make, unit=job.budget.units[0]
    )
    return found.budget, found.compressed


def _sample(fitted: ImageData, job: Job) -> ImageBatches:
    """The images that calibrate, drawn from those that are trained on."""
    some = fitted if job.calibrate >= len(fitted) else fitted.split(job.calibrate / len(fitted), job.seed)[0]
    return some.batches(min(EVALUATED, job.batch_size))


def _statistics(job: Job, seen: ImageBatches, bars: Bars) -> Statistics | None:
    """What the metric needs to know; checked first against a plan without it, so that faults come early."""
    table = LatencyTable(job.latencies)
    plan(job.dense, job.budget, example=job.example, preset=job.preset, select=job.select, latencies=table)
    if job.metric is None:
        return None
    with bars.bar("Calibrating", len(seen.data)) as bar:
        sites = find_sites(job.dense, job.example)
        return collect(
            job.dense,
            seen,
            sites,
            want=job.metric.needs,
            microbatch=job.microbatch,
            seed=job.seed,
            progress=lambda done: bar.at(done, len(seen.data), ""),
        )


def _tune(job: Job, small: nn.Module, fitted: ImageData, valid: ImageData, bars: Bars) -> None:
    if not job.epochs:
        return
    torch.manual_seed(job.seed)
    tuned(
        small,
        shuffled(fitted, job.batch_size, job.seed),
        valid.batches(EVALUATED),
        epochs=job.epochs,
        lr=job.lr,
        text="Tuning",
        bars=bars,
    )


def _notes(job: Job, judged: ImageBatches) -> tuple[str, ...]:
    count = len(judged.data)
    if job.test:
        images = f"Accuracy on the {count:,} images of --test-data, which were not used otherwise."
    else:
        images = (
            f"Accuracy on {count:,} images of --data, {_chosen_by_them(job)}which the dense model "
            "may have been trained on: give --test-data for a fair number."
        )
    notes = [images, costs_note(job.example), f"Inputs normalized with the numbers of {job.scale.source}."]
    if not job.has_weights:
        notes.append("No --weights were given: the dense model is as MODEL builds it.")
    return tuple(notes)


def _chosen_by_them(job: Job) -> str:
    """What the images that are held out have decided."""
    chosen = ["the size"] * (job.max_drop is not None) + ["the epoch"] * (job.epochs > 0)
    return f"which chose {' and '.join(chosen)} and " if chosen else ""


def _extra(job: Job, row: Row, dense: Row) -> dict[str, Any]:
    return {
        "mean": job.scale.mean,
        "std": job.scale.std,
        "classes": job.train.classes,
        "shape": tuple(job.train.images.shape[1:]),
        "accuracy": row.accuracy,
        "accuracy_dense": dense.accuracy,
    }


def write(out: Path, outcome: Outcome) -> None:
    """Checkpoint and report in one folder, all of it or nothing."""
    with replacing_folder(out, PLAN, CONTENT) as folder:
        save(outcome.model, folder, outcome.plan, outcome.extra)
        (folder / REPORT).mkdir()
        write_html(outcome.table, folder / REPORT / "index.html")
        text = json.dumps(outcome.table.to_dict(), indent=2)
        (folder / REPORT / "table.json").write_text(text + "\n", encoding="utf-8")
