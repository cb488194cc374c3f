"""What a package offers is sorted, and can be imported."""

import importlib
import pkgutil

import pytest

import tenfold

PACKAGES = ["tenfold", *(f"tenfold.{m.name}" for m in pkgutil.iter_modules(tenfold.__path__) if m.ispkg)]


def natural(name: str) -> tuple[bool, bool, str]:
    """The order of ruff: CONSTANTS, Classes, functions."""
    return not name.isupper(), not name[:1].isupper(), name


@pytest.mark.parametrize("name", PACKAGES)
def test_exported_names_are_sorted_and_importable(name: str) -> None:
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert names == sorted(names, key=natural)
    assert len(set(names)) == len(names)
    for n in names:
        assert hasattr(module, n), f"{name} has no {n}"
