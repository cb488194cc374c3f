"""`tenfold demo`: train, compress in many ways, tune, compare; needs no files and no network."""

from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli import options
from tenfold.cli.command import Document


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write checkpoints and index.html to.")] = Path(
        "tenfold-demo"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer variants and epochs: some seconds.")] = False,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> Document | None:
    """Train a small network on handwritten digits, compress it in many ways, and compare them.

    Takes about half a minute on one core; the images come with scikit-learn.
    """
    from rich.console import Console

    from tenfold.cli.bars import bars
    from tenfold.cli.showcase import FULL, MARKER, QUICK, shown, write
    from tenfold.core.atomic import check_folder
    from tenfold.report import as_rich

    check_folder(out, MARKER)
    with bars(as_json) as progress:
        result = shown(QUICK if quick else FULL, seed, progress)
    write(out, result)
    if as_json:
        return {"out": str(out), **result.table.to_dict()}
    Console().print(as_rich(result.table))
    typer.echo(f"Wrote {out}. Open {out / 'index.html'} in a browser.")
    return None
