"""`tenfold plan`: choose ranks for a budget, as a file to look at, to edit and to apply."""

from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli import options
from tenfold.cli.command import Document


def plan(
    model: options.Model,
    weights: options.Weights = None,
    input_shape: options.InputShape = "1,3,32,32",
    keep: options.Keep = "params=0.25",
    preset: options.Preset = "tucker2",
    select: options.Select = None,
    rule: options.Rule = "uniform",
    out: Annotated[Path | None, typer.Option(help="The file to write, such as plan.json.")] = None,
    as_json: options.Json = False,
) -> Document | None:
    """Choose what is done at each layer, so that the budget is met; `tenfold apply` carries it out."""
    from rich.console import Console

    from tenfold.cli import asked, listing
    from tenfold.cli.models import check_runs
    from tenfold.cli.requests import dense_model, recorded
    from tenfold.compress import plan as make_plan
    from tenfold.compress.opening import opened
    from tenfold.core.atomic import check_file

    if out:
        check_file(out)
    budget, chosen_rule, selection = asked.budget(keep), asked.rule(rule), asked.selection(select)
    example = asked.example(input_shape or "1,3,32,32")
    network, _ = dense_model(model, weights, seed=0)
    check_runs(network, example, model, "Give the shape of its inputs: --input-shape N,C,H,W.")
    made = make_plan(
        network, budget, example=example, preset=asked.preset(preset), select=selection, rule=chosen_rule
    )
    made = recorded(made, model, seed=0)
    if out:
        made.save(out)
    if as_json:
        return made.to_dict()
    parameters = opened(network).named_parameters(remove_duplicate=False)
    shapes = {name: tuple(p.shape) for name, p in parameters}
    Console().print(listing.planned(f"{model}, {asked.in_words(budget)}", made, shapes))
    if out:
        typer.echo(f"Wrote {out}. Next: tenfold apply {model} --weights … --plan {out} --out DIR")
    return None
