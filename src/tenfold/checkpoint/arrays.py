"""A state dict as safetensors: contiguous, each shared parameter once, and the order in which factors lie."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tenfold.compress.apply import factorized
from tenfold.core.errors import CheckpointError
from tenfold.core.layout import rearrange
from tenfold.core.network import Axes

ARRAYS_FORMAT = "tenfold-1"


def write_arrays(model: nn.Module, path: Path) -> None:
    """Write the model's state dict; what two names share is written once and the second name noted."""
    arrays: dict[str, Tensor] = {}
    first: dict[tuple[int, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), *tensor.shape, *tensor.stride())
        if tensor.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        arrays[name] = tensor.detach().contiguous().clone()
    metadata = {
        "format": ARRAYS_FORMAT,
        "aliases": json.dumps(aliases),
        "stored": json.dumps(stored_orders(model)),
    }
    save_file(arrays, path, metadata)
    path.chmod(0o644)  # safetensors leaves it readable by its owner alone


def stored_orders(model: nn.Module) -> dict[str, list[str]]:
    """Parameter name -> the axes of its factor in the order of storage."""
    return {
        f"{layer}.weight.{name}": list(stored.axes)
        for layer, module in factorized(model)
        for name, stored in zip(module.weight.names, module.weight.stored, strict=True)
    }


def read_arrays(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """The state dict that `write_arrays` wrote, with factors in the order in which `model` stores them."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read: {error}.", "It may be cut short; write it anew."
        ) from error
    orders = {name: tuple(axes) for name, axes in json.loads(metadata.get("stored", "{}")).items()}
    arrays = reordered(arrays, orders, model)
    aliases: Mapping[str, str] = json.loads(metadata.get("aliases", "{}"))
    return arrays | {name: arrays[source] for name, source in aliases.items()}


def reordered(
    arrays: Mapping[str, Tensor], orders: Mapping[str, Axes], model: nn.Module
) -> dict[str, Tensor]:
    """Factors brought to the order in which the layers of `model` store them, where it was another one.

    The planner of a later version may choose other steps, which want their weights in another order.
    """
    changed = dict(arrays)
    for layer, module in factorized(model):
        weight = module.weight
        for name, stored in zip(weight.names, weight.stored, strict=True):
            key = f"{layer}.weight.{name}"
            if key in arrays and key in orders and orders[key] != stored.axes:
                changed[key] = rearrange(
                    arrays[key], orders[key], stored.axes, weight.network.size_of, stored.shape
                ).contiguous()
    return changed
