"""Taking batches apart: inputs, labels, and so many samples."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tenfold.compress.batches import length, mapped, parts, placed, tensors
from tenfold.core.errors import DataError


@dataclass(frozen=True)
class Samples:
    """A batch on the model's device, its two parts, and the length of the first axis of its tensors."""

    batch: Any
    inputs: Any
    labels: Any
    count: int


def drawn(
    batches: Iterable[Any], limit: int | None, device: torch.device, needs: str = ""
) -> Iterator[Samples]:
    """The batches, at most `limit` samples in all: the last batch is cut, and none is read after it.

    A tuple or list of two is (inputs, labels), of one is inputs; anything else is inputs. `needs` is what the
    message says of how many samples it takes, if there are none.

    Raises:
        DataError: if there is no sample at all, or one batch came in place of several.

    >>> pairs = [(torch.ones(4, 2), torch.zeros(4))] * 3
    >>> [(s.count, s.labels.shape) for s in drawn(pairs, 6, torch.device("cpu"))]
    [(4, torch.Size([4])), (2, torch.Size([2]))]
    """
    _check_several(batches)
    seen = 0
    for batch in batches:
        count = length(batch)
        if limit is not None and count > limit - seen:
            batch, count = mapped(batch, partial(_cut, length=count, kept=limit - seen)), limit - seen
        if count:
            batch = placed(batch, device)
            yield Samples(batch, *parts(batch), count)
        seen += count
        if seen == limit:
            break
    if not seen:
        raise DataError(
            "There are no batches to calibrate with.",
            f"Pass a list or DataLoader of inputs; a generator can be read only once.{needs and ' '}{needs}",
        )


def _check_several(batches: Any) -> None:
    """A batch in place of batches would be read as samples, or as names."""
    if isinstance(batches, Tensor | Mapping | str):
        raise DataError(
            f"batches came as one {type(batches).__name__}: {described(batches)}.",
            "Give several, or one in a list: [batch].",
        )


def described(batch: Any) -> str:
    """Shapes and types of what a batch holds, for messages.

    >>> described((torch.ones(2, 3), {"ids": torch.ones(4)}, None))
    "((2, 3) float32, {'ids': (4,) float32}, NoneType)"
    """
    if isinstance(batch, Tensor):
        return f"{tuple(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{name!r}: {described(value)}" for name, value in batch.items()) + "}"
    if isinstance(batch, tuple | list):
        return "(" + ", ".join(described(value) for value in batch) + ")"
    return type(batch).__name__


def wants_gradient(batch: Any) -> bool:
    """Whether a tensor of the batch asks for its gradient.

    >>> wants_gradient({"x": torch.ones(2), "y": (torch.ones(2, requires_grad=True), None)})
    True
    """
    return any(x.requires_grad for x in tensors(batch))


def _cut(x: Tensor, length: int, kept: int) -> Tensor:
    return x[:kept] if x.ndim and len(x) == length else x
