"""The command `tenfold` and its subcommands."""

from importlib.metadata import version
from typing import Annotated

import typer

from tenfold.cli.apply import apply
from tenfold.cli.command import Command
from tenfold.cli.compress import compress
from tenfold.cli.demo import demo
from tenfold.cli.evaluate import evaluate
from tenfold.cli.inspect import inspect
from tenfold.cli.plan import plan
from tenfold.cli.train import train

app = typer.Typer(
    name="tenfold",
    help="Make neural networks smaller and faster by decomposing their weights.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, inspect, compress, evaluate, plan, apply, train):
    app.command(cls=Command)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tenfold {version('tenfold')}")
        raise typer.Exit()


@app.callback()
def _tenfold(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make neural networks smaller and faster by decomposing their weights."""


def main() -> None:
    """Run the command line."""
    app()
