"""`tenfold inspect`: what could be compressed, and what each preset would cost."""

from typing import Annotated

import typer

from tenfold.cli import options
from tenfold.cli.command import Document


def inspect(
    model: options.Model,
    weights: options.Weights = None,
    input_shape: options.InputShape = "1,3,32,32",
    keep: options.Keep = "params=0.25",
    preset: Annotated[
        str | None,
        typer.Option(help="Only this preset; several with commas, or auto for those it chooses among."),
    ] = None,
    as_json: options.Json = False,
) -> Document | None:
    """Show the weights that may be compressed, and what each preset would make of them.

    Nothing is fitted: ranks come from the budget and the shapes alone.
    """
    from rich.console import Console

    from tenfold.cli import asked, costs, listing
    from tenfold.cli.bars import bars
    from tenfold.cli.models import check_runs
    from tenfold.cli.requests import dense_model

    budget, names = asked.budget(keep), asked.listed(preset)
    example = asked.example(input_shape or "1,3,32,32")
    network, _ = dense_model(model, weights, seed=0)
    check_runs(network, example, model, "Give the shape of its inputs: --input-shape N,C,H,W.")
    with bars(as_json) as progress, progress.bar("Planning", len(names)) as bar:
        found = costs.costs(network, example, budget, names, bar)
    if as_json:
        return {"model": model, "keep": keep, "input_shape": tuple(example.shape), **found.to_dict()}
    console = Console()
    for table in listing.inspected(model, asked.in_words(budget), example.shape, found):
        console.print(table)
    return None
