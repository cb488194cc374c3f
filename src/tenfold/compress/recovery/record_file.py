"""Tensors and facts in one file: safetensors, with JSON in its header.

Nothing in it is code, so a file from elsewhere can do no harm. It is written whole or not at all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tenfold.core.atomic import StrPath, replacing
from tenfold.core.errors import CheckpointError

Tensors = dict[str, Tensor]
Facts = dict[str, Any]


def named(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The same tensors under "prefix/name"."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors that `named` put under `prefix`, with their names of before.

    >>> import torch
    >>> list(under("model", {"model/weight": torch.ones(1), "best/weight": torch.ones(1)}))
    ['weight']
    """
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def write(path: StrPath, format: str, facts: Facts, tensors: Tensors) -> None:
    """Replace the file at once."""
    if strange := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"The model keeps '{strange[0]}' in its state, which is no tensor.",
            "Leave out resume for a model with extra state.",
        )
    if wide := [name for name, value in tensors.items() if value.dtype == torch.complex128]:
        raise CheckpointError(
            f"'{wide[0]}' has the type complex128, which files of safetensors do not hold.",
            "Train in complex64, or leave out resume.",
        )
    arrays = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(path) as temporary:
        save_file(arrays, temporary, {"format": format, "facts": json.dumps(facts)})
        temporary.chmod(0o644)  # safetensors leaves it readable by its owner alone


def read(path: StrPath, format: str) -> tuple[Facts, Tensors]:
    """What `write` wrote in this format.

    Raises:
        CheckpointError: if the file is something else, or cut short.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _foreign(path, f"it cannot be read as safetensors ({error})") from error
    if header.get("format") != format:
        raise _foreign(path, f"its format is {header.get('format')}, not {format}")
    try:
        return json.loads(header["facts"]), tensors
    except (KeyError, ValueError) as error:
        raise _foreign(path, f"its header is damaged ({error})") from error


def rewind(path: Path, format: str, model: nn.Module) -> None:
    """Give the model the weights of the file; if there is none, nothing happens."""
    if path.exists():
        _, tensors = read(path, format)
        model.load_state_dict(under("model", tensors))


def _foreign(path: StrPath, why: str) -> CheckpointError:
    return CheckpointError(
        f"'{path}' is no record of a training: {why}.",
        "Name a file that tenfold wrote here before, or a new one; no other file is replaced.",
    )
