"""What one batch may be, in calibration and training alike: inputs alone, or inputs with labels.

Inputs are a tensor, a tuple of arguments or a mapping of named ones. A tuple or list of two is
(inputs, labels), of one is (inputs,), so a pair of arguments without labels is written ((a, b), None).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.errors import DataError
from tenfold.measure.running import run

Batches = Iterable[Any]
Forward = Callable[[nn.Module, Any], Any]
"""Runs a model on a whole batch, which is on its device, and returns its outputs."""


def parts(batch: Any) -> tuple[Any, Any]:
    """Inputs and labels, None where there are none.

    >>> parts(torch.ones(2))[1] is None, parts(({"ids": 3}, 1)), parts([5]), parts((1, 2, 3))
    (True, ({'ids': 3}, 1), (5, None), ((1, 2, 3), None))
    """
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        return batch[0], (batch[1] if len(batch) == 2 else None)
    return batch, None


def outputs_of(model: nn.Module, batch: Any, forward: Forward | None = None) -> Any:
    """What the model gives for a batch on its device: of its inputs, or as `forward(model, batch)` says.

    >>> outputs_of(nn.Bilinear(2, 3, 4), ((torch.ones(1, 2), torch.ones(1, 3)), None)).shape
    torch.Size([1, 4])
    """
    if forward is not None:
        return forward(model, batch)
    inputs, _ = parts(batch)
    return run(model, inputs)


def placed(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on `device`."""
    return mapped(batch, partial(_to, device))


def _to(device: torch.device, tensor: Tensor) -> Tensor:
    return tensor.to(device, non_blocking=True)


def mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The batch with all its tensors changed, in tuples, lists and mappings."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {name: mapped(value, change) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        entries = [mapped(value, change) for value in batch]
        return entries if isinstance(batch, list) else tuple(entries)
    return batch


def length(batch: Any) -> int:
    """Length of the first tensor's first axis; raises DataError if there is no such tensor.

    >>> length({"ids": torch.zeros(4, 7), "lengths": torch.zeros(4)})
    4
    """
    for tensor in tensors(batch):
        if tensor.ndim:
            return len(tensor)
    raise DataError(
        f"a batch of type {type(batch).__name__} holds no tensor with samples along its first axis.",
        "Give tensors, pairs (inputs, labels), or mappings of tensors.",
    )


def tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors in the batch, in their order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | tuple | list):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from tensors(value)
