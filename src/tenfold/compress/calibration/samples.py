"""Taking batches apart: inputs, labels, and so many samples."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tenfold.core.errors import DataError


@dataclass(frozen=True)
class Samples:
    """A batch on the model's device, its two parts, and the length of the first axis of its tensors."""

    batch: Any
    inputs: Any
    labels: Any
    count: int


def drawn(batches: Iterable[Any], limit: int | None, device: torch.device) -> Iterator[Samples]:
    """The batches, at most `limit` samples in all: the last batch is cut, and none is read after it.

    A tuple or list of two is (inputs, labels), of one is inputs; anything else is inputs.

    Raises:
        DataError: if there is no sample at all.

    >>> pairs = [(torch.ones(4, 2), torch.zeros(4))] * 3
    >>> [(s.count, s.labels.shape) for s in drawn(pairs, 6, torch.device("cpu"))]
    [(4, torch.Size([4])), (2, torch.Size([2]))]
    """
    seen = 0
    for batch in batches:
        count = length(batch)
        if limit is not None and count > limit - seen:
            batch, count = mapped(batch, partial(_cut, length=count, kept=limit - seen)), limit - seen
        if count:
            batch = mapped(batch, lambda x: x.to(device, non_blocking=True))
            yield Samples(batch, *_parts(batch), count)
        seen += count
        if seen == limit:
            break
    if not seen:
        raise DataError(
            "There are no batches to calibrate with.",
            "Pass a list or DataLoader of inputs; a generator can be read only once.",
        )


def _parts(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        return batch[0], (batch[1] if len(batch) == 2 else None)
    return batch, None


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


def _cut(x: Tensor, length: int, kept: int) -> Tensor:
    return x[:kept] if x.ndim and len(x) == length else x


def length(batch: Any) -> int:
    """Length of the first tensor's first axis; raises DataError if there is no such tensor."""
    for tensor in _tensors(batch):
        if tensor.ndim:
            return len(tensor)
    raise DataError(
        f"a batch of type {type(batch).__name__} holds no tensor with samples along its first axis.",
        "Give tensors, pairs (inputs, labels), or mappings of tensors.",
    )


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | tuple | list):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(value)
