"""What all subcommands do with an error: say it on stderr, and exit with 2; and with `--json`."""

import json
import sys
from contextlib import redirect_stdout
from typing import Any

import typer
from typer.core import TyperCommand

from tenfold.core.errors import TenfoldError

USAGE, INTERRUPTED = 2, 130
Document = dict[str, Any]
"""What a subcommand returns when JSON is asked for."""


class Command(TyperCommand):
    """A subcommand. Errors of ours are printed without a traceback, all others keep theirs.

    With `--json`, the document that it returns is all that comes to stdout: what models and other libraries
    print meanwhile goes to stderr.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            if not ctx.params.get("as_json", False):
                return super().invoke(ctx)
            with redirect_stdout(sys.stderr):
                document: Document = super().invoke(ctx)
            typer.echo(json.dumps(document, indent=2))
        except TenfoldError as error:
            show(error, as_json=ctx.params.get("as_json", False))
            raise typer.Exit(USAGE) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error


def show(error: TenfoldError, *, as_json: bool) -> None:
    """Print problem and remedy on stderr: in colour, or as one JSON document."""
    if as_json:
        typer.echo(json.dumps({"error": error.problem, "remedy": error.remedy}), err=True)
        return
    typer.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(error.problem, err=True)
    if error.remedy:
        typer.secho(error.remedy, fg="cyan", err=True)
