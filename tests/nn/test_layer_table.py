"""The tables of laws in the documentation are those of this version, and its examples run."""

import doctest
import runpy
from pathlib import Path

from tenfold.formats import formats
from tenfold.nn import OPENINGS, REPLACEMENTS
from tenfold.testing.every_law import every_case

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = runpy.run_path(str(DOCS / "layer_table.py"))


def test_the_tables_are_those_that_the_script_writes() -> None:
    counts = dict(map(SCRIPT["planned"], every_case()))
    page = (DOCS / "layers.md").read_text()
    assert page == SCRIPT["written"](page, SCRIPT["tables"](counts)), "run docs/layer_table.py"


def test_every_registered_layer_and_format_stands_in_the_documentation() -> None:
    page = (DOCS / "layers.md").read_text()
    for kind in [*REPLACEMENTS, *REPLACEMENTS.values()]:
        assert f"`nn.{kind.__name__}`" in page or f"`{kind.__name__}`" in page
    assert all(f"`nn.{name.rpartition('.')[2]}`" in page or "Conv1D" in name for name in OPENINGS)
    head = next(line for line in page.splitlines() if "lowrank" in line and line.startswith("| |"))
    assert head == f"| | {' | '.join(formats)} |"


def test_the_examples_run() -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testfile(str(DOCS / "layers.md"), module_relative=False, optionflags=flags)
    assert found.attempted > 8 and not found.failed
