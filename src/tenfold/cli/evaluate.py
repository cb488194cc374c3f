"""`tenfold evaluate`: the numbers of a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli import options
from tenfold.cli.command import Document


def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A checkpoint that tenfold wrote.")],
    data: options.Data,
    model: Annotated[
        str | None,
        typer.Option(help=f"{options.MODEL_HELP} Not needed for tenfold.zoo."),
    ] = None,
    batch_size: options.BatchSize = 256,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> Document | None:
    """Load a checkpoint, and measure its accuracy, size, FLOPs and latency.

    Classes are found by the names that the checkpoint notes, if it does.
    The architecture comes from --model: nothing is imported because a file says so.
    """
    from rich.console import Console

    from tenfold.cli import asked, images, saved
    from tenfold.cli.bars import bars
    from tenfold.cli.models import check_runs
    from tenfold.cli.results import BATCH, costs_note, measurements
    from tenfold.report import Row, Table, as_rich

    given, where = images.given_scale(mean, std), asked.device(device)
    checkpoint = saved.opened(directory)
    scale = given or checkpoint.scale()
    text = checkpoint.architecture(model)
    network = checkpoint.network(text).to(where)
    with bars(as_json) as progress:
        shown = images.scaled(images.open_images(data, progress, test=True), scale)
        shown = images.matched(shown, images.noted_classes(checkpoint.notes) or shown.classes)
        example = images.first(shown, BATCH).to(where)
        check_runs(network, example, text, "Give images of the kind it was trained on.", len(shown.classes))
        found = measurements({"it": network}, example, shown.batches(batch_size), progress)["it"]
    if as_json:
        summary = {"directory": str(directory), "model": text, "preset": checkpoint.preset}
        return {**summary, **found.to_dict(), "images": len(shown)}
    notes = (f"Accuracy on {len(shown):,} images of {data}.", costs_note(example))
    Console().print(as_rich(Table(str(directory), Row.of(checkpoint.preset, found), notes=notes)))
    return None
