"""A state dict as safetensors: contiguous, each shared parameter once, and the order in which factors lie."""

from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from tenfold.checkpoint.header import ARRAYS_FORMAT, Header, read_header, unreadable
from tenfold.checkpoint.joint import families_of
from tenfold.compress.apply import factorized
from tenfold.core.errors import CheckpointError, TargetError
from tenfold.core.layout import rearrange
from tenfold.core.network import Axes
from tenfold.core.program import Stored
from tenfold.nn.tensor.factorized import FactorizedTensor
from tenfold.nn.tensor.shared_factors import SharingTensor

__all__ = ["ARRAYS_FORMAT", "read_arrays", "reordered", "stored_orders", "write_arrays"]


def write_arrays(model: nn.Module, path: Path) -> None:
    """Write the model's state dict; what two names share is written once and the second name noted.

    Raises:
        CheckpointError: if an entry is no tensor, or one that safetensors cannot hold; nothing is written.
        TargetError: if the file cannot be written.
    """
    arrays: dict[str, Tensor] = {}
    first: dict[Hashable, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict().items():
        _check_storable(name, tensor)
        key = _identity(tensor)
        if tensor.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        arrays[name] = tensor.detach().resolve_conj().resolve_neg().contiguous().clone()
    _write(arrays, path, Header(aliases, stored_orders(model), families_of(model)).metadata())


def _identity(tensor: Tensor) -> Hashable:
    """Equal for tensors with the same numbers at the same place."""
    place = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    return place, tensor.shape, tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg()


def _check_storable(name: str, entry: Any) -> None:
    if problem := _problem(entry):
        raise CheckpointError(
            f"the entry '{name}' of the model's state cannot be stored: it is {problem}.",
            "A checkpoint holds dense tensors; convert the entry, or keep it out of the state dict.",
        )


def _problem(entry: Any) -> str | None:
    """What keeps an entry of a state dict from being written."""
    if not isinstance(entry, Tensor):
        return f"no tensor but of type {type(entry).__name__}"
    if entry.is_meta:
        return "on the meta device, without values"
    if entry.is_quantized:
        return "a quantized tensor"
    if entry.layout != torch.strided or entry.is_nested:
        return "a sparse or nested tensor"
    return None if _has_format(entry.dtype) else f"of the type {entry.dtype}, which safetensors lacks"


@cache
def _has_format(dtype: torch.dtype) -> bool:
    """Asked by writing one number, for each version of safetensors has other types."""
    try:
        to_bytes({"one": torch.empty(1, dtype=dtype)})
    except (KeyError, ValueError, SafetensorError):
        return False
    return True


def _write(arrays: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """With the permissions that `open` gives; safetensors alone leaves a file to its owner."""
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:
        raise TargetError(
            f"'{path}' cannot be written: {error}.",
            "Check the permissions and the free space there, or choose another folder.",
        ) from error
    path.chmod(mode)


def stored_orders(model: nn.Module) -> dict[str, Axes]:
    """Parameter name -> the axes of its factor in the order of storage."""
    return {name: stored.axes for name, stored, _ in stored_factors(model)}


def stored_factors(model: nn.Module) -> Iterator[tuple[str, Stored, FactorizedTensor]]:
    """The factors of all layers by the names that they have in a state; those that are shared come often."""
    for layer, module in factorized(model):
        weight = module.weight
        for name, stored in zip(weight.names, weight.stored, strict=True):
            if name in weight.computed:
                continue
            shared = isinstance(weight, SharingTensor) and hasattr(weight.shared, name)
            yield f"{layer}.weight.{'shared.' if shared else ''}{name}", stored, weight


def read_arrays(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """The state dict that `write_arrays` wrote, with factors in the order in which `model` stores them.

    Raises:
        CheckpointError: if the file cannot be read, or its header names arrays that it has not got.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error
    arrays = reordered(arrays, header.stored, model)
    if lost := next((name for name in header.aliases.values() if name not in arrays), None):
        raise CheckpointError(
            f"'{path}' has no array '{lost}', which its header names.", "Write the checkpoint anew."
        )
    return arrays | {name: arrays[source] for name, source in header.aliases.items()}


def reordered(
    arrays: Mapping[str, Tensor], orders: Mapping[str, Axes], model: nn.Module
) -> dict[str, Tensor]:
    """Factors brought to the order in which the layers of `model` store them, where it was another one.

    The planner of a later version may choose other steps, which want their weights in another order.
    """
    changed = dict(arrays)
    for key, stored, weight in stored_factors(model):
        if key in arrays and key in orders and orders[key] != stored.axes:
            if sorted(orders[key]) != sorted(stored.axes):
                raise CheckpointError(
                    f"the factor '{key}' was stored over the axes {orders[key]}, not {stored.axes}.",
                    "Give the architecture that was compressed.",
                )
            changed[key] = rearrange(
                arrays[key], orders[key], stored.axes, weight.network.size_of, stored.shape
            ).contiguous()
    return changed
