"""Taking batches apart: inputs, labels, so many samples, and so many at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tenfold.compress.batches import length, mapped, parts, placed, tensors
from tenfold.core.errors import DataError


@dataclass(frozen=True)
class Samples:
    """A batch on the model's device, its two parts, and the length of the first axis of its tensors.

    Or a piece of a batch, which has `whole` samples.
    """

    batch: Any
    inputs: Any
    labels: Any
    count: int
    whole: int


def drawn(
    batches: Iterable[Any],
    limit: int | None,
    device: torch.device,
    needs: str = "",
    microbatch: int | None = None,
) -> Iterator[Samples]:
    """The batches, at most `limit` samples in all: the last batch is cut, and none is read after it.

    A tuple or list of two is (inputs, labels), of one is inputs; anything else is inputs. `needs` is what the
    message says of how many samples it takes, if there are none. Batches come in pieces of `microbatch`
    samples, each brought to the device when its turn comes.

    Raises:
        DataError: if there is no sample at all, one batch came in place of several, or one cannot be cut.

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
        for piece, size in pieces(batch, count, microbatch):
            piece = placed(piece, device)
            yield Samples(piece, *parts(piece), size, count)
        seen += count
        if seen == limit:
            break
    if not seen:
        raise DataError(
            "There are no batches to calibrate with.",
            f"Pass a list or DataLoader of inputs; a generator can be read only once.{needs and ' '}{needs}",
        )


def pieces(batch: Any, count: int, size: int | None) -> Iterator[tuple[Any, int]]:
    """A batch of `count` samples in views of `size` each, and how many the view has: the last has the rest.

    Numbers, tensors without axes and whatever else is no tensor go with every piece.

    Raises:
        DataError: if a tensor has not one row for each sample, or samples are held in a list.

    >>> [(x["a"].tolist(), n) for x, n in pieces({"a": torch.arange(3), "b": 0.5}, 3, 2)]
    [([0, 1], 2), ([2], 1)]
    """
    if size is None or size >= count:
        if count:
            yield batch, count
        return
    _check_rows(batch, count)
    for start in range(0, count, size):
        rows = slice(start, min(count, start + size))
        yield mapped(batch, partial(_rows, rows=rows)), rows.stop - rows.start


def few(batch: Any, size: int = 8) -> Any:
    """The first samples of a batch, for what the model alone decides; the batch itself where it is not cut.

    >>> few((torch.zeros(99, 3), torch.zeros(99)))[0].shape
    torch.Size([8, 3])
    """
    try:
        return next(pieces(batch, length(batch), size))[0]
    except DataError:
        return batch


def _check_rows(part: Any, count: int) -> None:
    """Raise DataError if it is not clear which of it belongs to which sample."""
    held = isinstance(part, Mapping) or (isinstance(part, tuple | list) and any(True for _ in tensors(part)))
    if held:
        for value in part.values() if isinstance(part, Mapping) else part:
            _check_rows(value, count)
    elif isinstance(part, Tensor):
        if part.ndim and len(part) != count:
            raise DataError(
                f"a batch of {count} samples holds a tensor {described(part)}, which cannot be cut "
                "sample by sample.",
                "Give every tensor one row for each sample (`expand` copies none), or microbatch=None.",
            )
    elif isinstance(part, Sized) and not isinstance(part, str) and len(part) == count:
        raise DataError(
            f"a batch holds its {count} samples in a {type(part).__name__}, which is not cut.",
            "Give them as tensors, or microbatch=None and smaller batches.",
        )


def _rows(x: Tensor, rows: slice) -> Tensor:
    return x[rows] if x.ndim else x


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
