"""`tenfold compress`: from a dense model and images to a smaller model and a report."""

from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli import options
from tenfold.cli.command import Document


def compress(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The folder to write checkpoint and report to.")],
    weights: options.Weights = None,
    keep: options.Keep = "params=0.25",
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Take the smallest model that loses at most so many points before tuning, on images held "
            "out of --data; --keep then only names the unit."
        ),
    ] = None,
    latencies: Annotated[
        Path | None, typer.Option(help="A file of measured times, made or added to, for --keep latency=.")
    ] = None,
    preset: options.Preset = "auto",
    select: options.Select = None,
    rule: options.Rule = "lagrangian",
    metric: Annotated[
        str,
        typer.Option(
            help="The inner product in which weights are approximated: kronecker_fisher, input_covariance, "
            "diagonal_input, fisher, or none."
        ),
    ] = "kronecker_fisher",
    refine: Annotated[
        int,
        typer.Option(min=0, help="Steps of refining factors in the metric, where it is not exact at once."),
    ] = 20,
    correct: Annotated[
        bool,
        typer.Option(
            help="Let each layer make up for the errors of those before it; takes memory for the activations "
            "of all images between two layers, some fifteen times."
        ),
    ] = True,
    calibrate: Annotated[
        int, typer.Option(min=1, help="Images of --data that the metric is made from.")
    ] = 2000,
    microbatch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Take loss gradients of so many images at a time, for less memory; by default of a batch.",
        ),
    ] = None,
    tune_epochs: Annotated[int, typer.Option(min=0, help="Epochs of tuning after compression.")] = 5,
    test_data: options.TestData = None,
    lr: options.LearningRate = 1e-3,
    batch_size: options.BatchSize = 128,
    mean: options.Mean = None,
    std: options.Std = None,
    input_shape: options.InputShape = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> Document | None:
    """Compress a trained model, tune it, and compare it with the dense one.

    Without --test-data, the accuracy is that on the tenth of --data that is held out for validation.
    """
    from rich.console import Console

    from tenfold.checkpoint.folder import CONTENT, PLAN
    from tenfold.cli import asked, images
    from tenfold.cli.bars import bars
    from tenfold.cli.models import check_runs
    from tenfold.cli.outcome import Job, compressed, write
    from tenfold.cli.requests import dense_model
    from tenfold.cli.results import BATCH
    from tenfold.core.atomic import check_folder
    from tenfold.report import as_rich

    check_folder(out, PLAN, CONTENT)
    budget, chosen_rule, selection = asked.budget(keep), asked.rule(rule), asked.selection(select)
    inner, rate, drop = asked.metric(metric, refine), asked.rate(lr), asked.drop(max_drop)
    zeros = asked.example(input_shape) if input_shape else None
    given, where = images.given_scale(mean, std), asked.device(device)
    dense, read = dense_model(model, weights, seed)
    with bars(as_json) as progress:
        train = images.open_images(data, progress)
        test = images.open_images(test_data, progress, test=True) if test_data else None
        if test:
            test = images.alike(train, test)
        scale = given or images.noted_scale(read.notes, "the weights") or images.measured_scale(train)
        train = images.scaled(train, scale)
        example = images.first(train, BATCH) if zeros is None else zeros
        check_runs(dense, example, model, "Give images or a model of another shape.", len(train.classes))
        job = Job(
            dense=dense.to(where),
            name=model,
            train=train,
            test=images.scaled(test, scale) if test else None,
            scale=scale,
            example=example.to(where),
            budget=budget,
            preset=asked.preset(preset),
            label=preset,
            select=selection,
            rule=chosen_rule,
            metric=inner,
            correct=correct,
            max_drop=drop,
            latencies=latencies,
            calibrate=calibrate,
            microbatch=microbatch,
            epochs=tune_epochs,
            lr=rate,
            batch_size=batch_size,
            seed=seed,
            has_weights=weights is not None,
        )
        outcome = compressed(job, progress)
    write(out, outcome)
    if as_json:
        return {"out": str(out), **outcome.table.to_dict()}
    Console().print(as_rich(outcome.table))
    typer.echo(f"Wrote {out}; the report is {out / 'report' / 'index.html'}.")
    return None
