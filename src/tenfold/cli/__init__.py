"""The command line. Subcommands import what they need when they run, so that `tenfold --help` is quick."""

from tenfold.cli.app import app, main

__all__ = ["app", "main"]
