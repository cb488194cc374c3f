"""Who imports whom: the table of the design, read off the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "tenfold"
MAY_IMPORT = {
    "core": "",
    "algebra": "core",
    "formats": "core algebra",
    "decompose": "formats algebra core",
    "nn": "formats core",
    "ranks": "decompose formats core",
    "measure": "nn core",
    "compress": "measure nn ranks decompose formats core",
    "checkpoint": "compress nn formats core",
    "export": "nn core",
    "report": "measure compress core",
    "compat": "nn decompose formats core",
    "zoo": "core",
    "data": "core",
}
MAY_IMPORT["testing"] = " ".join(MAY_IMPORT)
EXTRAS = {"pyarrow", "PIL", "sklearn", "matplotlib", "importlib", "optuna"}
FILES = sorted(p for p in ROOT.glob("*/**/*.py") if p.relative_to(ROOT).parts[0] in MAY_IMPORT)


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that the import statements below `tree` name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_package_imports_only_what_the_design_allows(path: Path) -> None:
    package, tree = path.relative_to(ROOT).parts[0], ast.parse(path.read_text())
    ours = {name.split(".")[1] for name in imported(tree) if name.startswith("tenfold.")}
    assert ours - {package} <= set(MAY_IMPORT[package].split())
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    inside = {name.split(".")[0] for function in functions for name in imported(function)}
    assert inside <= EXTRAS, f"imports inside functions: {inside - EXTRAS}"
