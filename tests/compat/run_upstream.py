"""TensorLy-Torch's own tests with their imports turned to ours, in a folder of their own."""

import re
from importlib.util import find_spec
from pathlib import Path

THEIRS, OURS = "tltorch", "tenfold.compat.tltorch"
EDITS = {
    # torch has taken this argument away, so that these tests fail with TensorLy-Torch itself
    "factor=0.5, verbose=verbose)": "factor=0.5)",
}
SEED = """
import pytest, tensorly, torch

@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)
"""


def upstream() -> Path | None:
    """Where TensorLy-Torch is installed; None if it is not, or TensorLy is not."""
    found = find_spec(THEIRS) if find_spec("tensorly") else None
    return Path(found.origin).parent if found and found.origin else None


def copied_tests(source: Path, target: Path) -> list[Path]:
    """Copies of all test files below `source`, which import our names."""
    (target / "conftest.py").write_text(SEED)
    copies = []
    for file in sorted(source.rglob("tests/test_*.py")):
        package = file.relative_to(source).parent.parts
        copy = target / f"{file.stem}__{'_'.join(package[:-1])}.py"
        copy.write_text(turned(file.read_text(), package))
        copies.append(copy)
    return copies


def turned(text: str, package: tuple[str, ...]) -> str:
    """A test file of the sub-package `package` with absolute imports of our names."""

    def absolute(match: re.Match[str]) -> str:
        dots, rest = len(match[1]), match[2]
        parts = package[: len(package) - dots + 1]
        return f"from {'.'.join((OURS, *parts, *([rest] if rest else [])))} import"

    text = re.sub(r"from (\.+)([\w.]*) import", absolute, text)
    text = re.sub(rf"\b(from|import) {THEIRS}\b", rf"\1 {OURS}", text)
    for old, new in EDITS.items():
        text = text.replace(old, new)
    return text
