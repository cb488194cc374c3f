"""MODEL on the command line: where an architecture is found, and how it is built."""

import difflib
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.errors import ModelError
from tenfold.measure.running import device_of, evaluating
from tenfold.zoo import networks

FORMS = "Give package.module:callable or file.py:callable, such as tenfold.zoo:resnet20."
ZOO = "tenfold.zoo:"


def build(text: str) -> nn.Module:
    """The module that MODEL means, built anew if it is a callable; what it prints goes to stderr.

    Raises:
        ModelError: if it cannot be found or imported, raises when it is called, or is no module.

    >>> type(build("tenfold.zoo:digits_cnn")).__name__
    'Sequential'
    """
    with redirect_stdout(sys.stderr):
        target = find(text)
        model = target if isinstance(target, nn.Module) else _called(text, target)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"'{text}' gives {type(model).__name__}, which is no torch.nn.Module.",
            "Name a function that returns one.",
        )
    return model


def is_ours(text: object) -> bool:
    """Whether MODEL is a network of `tenfold.zoo`: the only ones that may be built because a file says so."""
    return isinstance(text, str) and text.startswith(ZOO) and text.removeprefix(ZOO) in networks


def find(text: str) -> Any:
    """What stands behind `place:name`."""
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ModelError(f"MODEL came as '{text}'.", FORMS)
    found: Any = _file(Path(place), text) if place.endswith(".py") else _package(place, text)
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, vars(found), n=1) if hasattr(found, "__dict__") else []
            hint = f"Did you mean '{near[0]}'?" if near else FORMS
            raise ModelError(f"'{place}' has no '{part}'.", hint)
        found = getattr(found, part)
    return found


def _package(place: str, text: str) -> ModuleType:
    """Import a module, also from the current folder."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    return _imported(text, lambda: import_module(place))


def _file(path: Path, text: str) -> ModuleType:
    """Run a file as a module; it may import its neighbours."""
    if not path.is_file():
        raise ModelError(f"There is no file '{path}'.", "Relative paths start at the current folder.")
    spec = spec_from_file_location(f"tenfold_model_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module, loader = module_from_spec(spec), spec.loader
    sys.modules[module.__name__] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)

    def executed() -> ModuleType:
        loader.exec_module(module)
        return module

    return _imported(text, executed)


def _imported(text: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except (Exception, SystemExit) as error:
        raise ModelError(f"'{text}' cannot be imported: {reason(error)}.", FORMS) from error


def _called(text: str, target: Any) -> Any:
    if not callable(target):
        raise ModelError(f"'{text}' is {type(target).__name__}, neither a module nor callable.", FORMS)
    try:
        return target()
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"'{text}' raises when it is called without arguments: {reason(error)}.",
            "Write a function without arguments that returns the model, and name that.",
        ) from error


def reason(error: BaseException) -> str:
    """An exception in one line, with the place in which it arose."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({Path(last[0].filename).name}, line {last[0].lineno})" if last else ""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else ''}{where}"


def check_runs(model: nn.Module, example: Tensor, text: str, remedy: str, classes: int | None = None) -> None:
    """Raise ModelError unless the model takes the example, and tells as many classes apart as there are."""
    try:
        with evaluating(model):
            outputs = model(example.to(device_of(model)))
    except Exception as error:
        shape = tuple(example.shape)
        raise ModelError(
            f"'{text}' cannot take an input of shape {shape}: {reason(error)}.", remedy
        ) from error
    if classes is None:
        return
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < classes:
        came = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ModelError(
            f"'{text}' gives {came} for {len(example)} images, but the data have {classes} classes.",
            f"The model has to give (images, classes) with {classes} classes or more.",
        )
