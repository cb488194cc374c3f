"""The page about coming from TensorLy-Torch: its code runs, and no public name is missing from it."""

import doctest
from pathlib import Path

import pytest

import tenfold.compat.tltorch as tltorch

PAGE = Path(__file__).parents[2] / "docs" / "migrating_from_tltorch.md"
MODULES = (tltorch, tltorch.factorized_layers, tltorch.functional, tltorch.tensor_hooks, tltorch.utils)


def test_the_code_of_the_page_runs() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 5 and found.failed == 0


@pytest.mark.parametrize("name", sorted({n for module in MODULES for n in module.__all__}))
def test_a_public_name_is_on_the_page(name: str) -> None:
    text = PAGE.read_text()
    assert f"`{name}`" in text or f".{name}`" in text
