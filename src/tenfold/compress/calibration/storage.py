"""Tensors with a header of JSON in one safetensors file, which a reader finds whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tenfold.core.atomic import replacing
from tenfold.core.errors import CheckpointError

FORMAT = "tenfold-statistics-1"


def write(path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Replace the file at once; a run that is killed leaves the old one."""
    with replacing(path) as temporary:
        save_file(dict(arrays), temporary, {"format": FORMAT, "header": json.dumps(header)})
        temporary.chmod(0o644)  # safetensors leaves it readable by its owner alone


def read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The header as it stands there, and the arrays on the CPU.

    Raises:
        CheckpointError: if the file cannot be read, or is of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"'{path}' holds no statistics.", "Give a file of `Statistics.save`.")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read: {error}.", "Delete it and collect anew, or check the path."
        ) from error
    return metadata.get("header", ""), arrays


def distinct(
    sites: Mapping[str, Mapping[str, Tensor]],
) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
    """Arrays to write, each once, and for every site: statistic -> name of its array."""
    arrays: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    places: dict[str, dict[str, str]] = {}
    for site, tensors in sites.items():
        places[site] = {}
        for name, tensor in tensors.items():
            key = first.setdefault(id(tensor), f"{site}/{name}")
            places[site][name] = key
            if key not in arrays:
                arrays[key] = tensor.detach().cpu().contiguous()
    return arrays, places
