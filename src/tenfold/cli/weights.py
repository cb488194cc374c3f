"""Files of weights: safetensors, and state dicts that torch wrote. Pickled modules are refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tenfold.cli.models import reason
from tenfold.core.atomic import write_bytes
from tenfold.core.errors import CheckpointError, OptionError

NESTED = ("state_dict", "model_state_dict", "model")
COUNTER = "num_batches_tracked"
SHOWN = 4


@dataclass(frozen=True)
class Weights:
    """Arrays by name, and the notes that the file holds."""

    arrays: Mapping[str, Tensor]
    notes: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """The arrays of a file.

    Raises:
        CheckpointError: if there is no such file, it cannot be read, or holds more than arrays.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"The weights '{path}' cannot be read: it {what}.", "Give a file of weights.")
    return _safetensors(path) if path.suffix == ".safetensors" else Weights(_state_dict(path))


def _safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            return Weights({name: file.get_tensor(name) for name in file.keys()}, notes)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}.", "It may be cut short.") from error


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"'{path}' holds pickled Python objects. They are refused: they could run any code.",
            "Save only the arrays: torch.save(model.state_dict(), path), or as .safetensors.",
        ) from error
    except Exception as error:  # torch raises whatever its reader stumbles over
        raise CheckpointError(
            f"'{path}' cannot be read by torch ({reason(error)}).", "Give a state dict."
        ) from error
    return _arrays(path, data)


def _arrays(path: Path, data: Any) -> Mapping[str, Tensor]:
    """The state dict itself, or the one in a training checkpoint."""
    nested = [data[key] for key in NESTED if isinstance(data, Mapping) and isinstance(data.get(key), Mapping)]
    found = nested[0] if nested else data
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(
            f"'{path}' holds {type(data).__name__}, not a state dict of names and arrays.",
            "Save one: torch.save(model.state_dict(), path).",
        )
    return found


def fill_(model: nn.Module, weights: Weights, path: Path, text: str) -> None:
    """Put the weights into the model.

    Raises:
        CheckpointError: if names or shapes differ; it lists some.
    """
    own = model.state_dict(keep_vars=True)
    given = {id(own[name]) for name in weights.arrays if name in own}
    missing = [
        name
        for name, value in own.items()
        if name not in weights.arrays and id(value) not in given and not name.endswith(COUNTER)
    ]
    unexpected = [name for name in weights.arrays if name not in own]
    known = {name: array for name, array in weights.arrays.items() if name in own}
    shapes = [
        f"{name} is {tuple(array.shape)} instead of {tuple(own[name].shape)}"
        for name, array in known.items()
        if array.shape != own[name].shape
    ]
    complexes = [name for name, array in known.items() if array.is_complex() and not own[name].is_complex()]
    faults = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "complex in place of real": complexes,
    }
    if any(faults.values()):
        listed = "; ".join(f"{what}: {_some(names)}" for what, names in faults.items() if names)
        raise CheckpointError(f"'{path}' does not fit '{text}'. {listed}.", "Give their architecture.")
    model.load_state_dict(weights.arrays, strict=False)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def write_weights(model: nn.Module, path: Path, notes: Mapping[str, str]) -> None:
    """Write the state dict as safetensors, whole or not at all."""
    arrays = {name: array.detach().cpu().clone().contiguous() for name, array in model.state_dict().items()}
    write_bytes(path, save(arrays, {"format": "pt", **notes}))


def check_name(path: Path) -> None:
    """Raise OptionError unless the file is called as what it will hold."""
    if path.suffix != ".safetensors":
        raise OptionError(
            f"Weights are written as safetensors, but --out is '{path}'.", "End it in .safetensors."
        )
