"""`tenfold apply`: carry out a plan."""

from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli import options
from tenfold.cli.command import Document


def apply(
    model: options.Model,
    plan: Annotated[Path, typer.Option(help="The plan, made by `tenfold plan`.")],
    out: Annotated[Path, typer.Option(help="The folder to write the checkpoint to.")],
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> Document | None:
    """Fit the factors that a plan asks for, and write a checkpoint. Nothing is tuned."""
    from copy import deepcopy
    from dataclasses import asdict

    from rich.console import Console

    from tenfold.checkpoint import save
    from tenfold.checkpoint.folder import CONTENT, PLAN
    from tenfold.cli import listing
    from tenfold.cli.bars import bars
    from tenfold.cli.images import given_scale, noted_scale
    from tenfold.cli.requests import dense_model, recorded
    from tenfold.cli.results import layer_lines
    from tenfold.compress import Plan, apply_
    from tenfold.core.atomic import check_folder

    check_folder(out, PLAN, CONTENT)
    given = given_scale(mean, std)
    chosen = recorded(Plan.load(plan), model, seed)
    dense, read = dense_model(model, weights, seed)
    scale = given or noted_scale(read.notes, "the weights")
    small = deepcopy(dense)
    with bars(as_json) as progress, progress.bar("Fitting") as bar:
        fits = apply_(small, chosen, seed=seed, progress=bar.at)
    save(small, out, chosen, {"mean": scale.mean, "std": scale.std} if scale else {})
    lines = layer_lines(dense, chosen, fits)
    if as_json:
        return {"out": str(out), "layers": [asdict(line) for line in lines]}
    Console().print(listing.fitted(f"{model}, {plan}", lines))
    typer.echo(f"Wrote {out}. Next: tenfold evaluate {out} --data …")
    return None
