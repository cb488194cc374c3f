"""`tenfold train`: a dense model to compress, for those who have none."""

from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli import options
from tenfold.cli.command import Document


def train(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The file to write, ending in .safetensors.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 10,
    test_data: options.TestData = None,
    augment: Annotated[
        bool,
        typer.Option("--augment", help="Shift and mirror images, where that keeps their class."),
    ] = False,
    lr: options.LearningRate = 2e-3,
    batch_size: options.BatchSize = 128,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> Document | None:
    """Train a model from scratch, with Adam and a cosine schedule, and write its weights.

    A tenth of the images is kept for validation; the epoch that is best there is written.
    """
    from dataclasses import asdict

    import torch

    from tenfold.cli import asked, images
    from tenfold.cli.bars import bars
    from tenfold.cli.models import check_runs
    from tenfold.cli.requests import dense_model
    from tenfold.cli.results import checked
    from tenfold.cli.tuning import shuffled, tuned
    from tenfold.cli.weights import check_name, write_weights
    from tenfold.core.atomic import check_file
    from tenfold.data.augment import Augmented

    check_name(out)
    check_file(out)
    given, where, rate = images.given_scale(mean, std), asked.device(device), asked.rate(lr)
    network, _ = dense_model(model, None, seed)
    with bars(as_json) as progress:
        shown = images.open_images(data, progress)
        scale = given or images.measured_scale(shown)
        shown = images.scaled(shown, scale)
        test = images.open_images(test_data, progress, test=True) if test_data else None
        if test:
            test = images.alike(shown, test)
        check_runs(network, images.first(shown, 2), model, "Give images of its shape.", len(shown.classes))
        seen, valid = shown.split(0.9, seed)
        batches = shuffled(seen, batch_size, seed)
        if augment:
            batches = Augmented(batches, generator=torch.Generator().manual_seed(seed))
        result = tuned(
            network.to(where),
            batches,
            valid.batches(256),
            epochs=epochs,
            lr=rate,
            text=f"Training {model}",
            bars=progress,
            patience=None,
        )
        judged = (images.scaled(test, scale) if test else valid).batches(256)
        accuracy = checked(network, judged, "Testing", progress)
    write_weights(network, out, {"model": model, **scale.notes()})
    if as_json:
        trace = [asdict(epoch) for epoch in result.trace]
        summary = {"out": str(out), "model": model, "accuracy": accuracy, "tested": test is not None}
        return {**summary, "best": result.best, "trace": trace}
    which = "test" if test else "validation"
    typer.echo(f"Accuracy {accuracy:.1%} on {len(judged.data):,} {which} images, after epoch {result.best}.")
    typer.echo(f"Wrote {out}.")
    return None
