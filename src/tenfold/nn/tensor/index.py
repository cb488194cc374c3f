"""What an index asks for, axis by axis, by the rules of torch."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tenfold.core.errors import TenfoldError


class TensorIndexError(TenfoldError, IndexError):
    """An index that a tensor cannot follow, or that it has not got."""


@dataclass(frozen=True)
class At:
    """One number: the axis goes."""

    axis: int
    number: int


@dataclass(frozen=True)
class Part:
    """A range with a step above 0: the axis stays."""

    axis: int
    range: range


@dataclass(frozen=True, eq=False)
class Rows:
    """Numbers in an array; all such arrays of an index are broadcast, and followed together."""

    axis: int
    numbers: Int[Tensor, "..."]


@dataclass(frozen=True)
class New:
    """An axis of size 1; True and False put one in that is indexed itself, `kept` says by which."""

    kept: bool | None = None


Item = At | Part | Rows | New


def items_of(index: Any, shape: Sequence[int], device: torch.device | None = None) -> list[Item]:
    """One item for each axis of the tensor, in their order, and those for new axes between them.

    Lists, ranges and NumPy arrays are arrays of numbers; boolean masks, which may span several axes, are the
    numbers of their true entries.

    Raises:
        TensorIndexError: for too many entries, numbers out of range, and what is no index.

    >>> items_of((..., -1), (4, 5, 6))
    [Part(axis=0, range=range(0, 4)), Part(axis=1, range=range(0, 5)), At(axis=2, number=5)]
    """
    entries = [_array(e, device) for e in (index if isinstance(index, tuple) else (index,))]
    used = sum(_span(e) for e in entries)
    dots = [k for k, e in enumerate(entries) if e is Ellipsis]
    if len(dots) > 1 or used > len(shape):
        raise TensorIndexError(
            f"an index with {used} entries{' and several ...' if len(dots) > 1 else ''} came for a tensor of "
            f"shape {tuple(shape)}.",
            "Give at most one entry for each axis, and one ... at most.",
        )
    at = dots[0] if dots else len(entries)
    rest = [slice(None)] * (len(shape) - used)
    found: list[Item] = []
    axis = 0
    for entry in (*entries[:at], *rest, *entries[at + 1 :]):
        found += _items(entry, axis, shape, device)
        axis += _span(entry)
    return found


def _array(entry: Any, device: torch.device | None) -> Any:
    """Sequences and NumPy arrays as tensors but for masks, and what stands for an int as an int."""
    if isinstance(entry, bool | np.bool_):
        return bool(entry)
    if entry is None or entry is Ellipsis or isinstance(entry, slice | int):
        return entry
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        entry = np.asarray(entry)
        entry = entry.astype(np.int64) if entry.size == 0 else entry
    if isinstance(entry, np.ndarray) and entry.dtype.kind == "b" and entry.ndim:
        return entry
    if isinstance(entry, np.ndarray) and entry.dtype.kind in "biu":
        entry = torch.from_numpy(entry.astype(bool if entry.dtype.kind == "b" else np.int64))
    if isinstance(entry, Tensor) and (entry.dtype == torch.bool or _whole(entry)):
        if entry.ndim == 0:
            return bool(entry) if entry.dtype == torch.bool else int(entry)
        return entry.to(device) if device is not None else entry
    try:
        return operator.index(entry)
    except TypeError:
        what = f"an array of {entry.dtype}" if hasattr(entry, "dtype") else repr(entry)
        raise TensorIndexError(
            f"{what} is no index.", "Give integers, slices, None, ..., or arrays of integers or booleans."
        ) from None


def _whole(entry: Tensor) -> bool:
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8)
    return entry.dtype in kinds


def _span(entry: Any) -> int:
    """How many axes of the tensor an entry is for."""
    if entry is None or entry is Ellipsis or isinstance(entry, bool):
        return 0
    return entry.ndim if _is_mask(entry) else 1


def _is_mask(entry: Any) -> bool:
    return isinstance(entry, np.ndarray) or (isinstance(entry, Tensor) and entry.dtype == torch.bool)


def _items(entry: Any, axis: int, shape: Sequence[int], device: torch.device | None) -> list[Item]:
    if entry is None or isinstance(entry, bool):
        return [New(entry)]
    if isinstance(entry, slice):
        return [Part(axis, _range(entry, shape[axis]))]
    if isinstance(entry, int):
        return [At(axis, _checked(entry, axis, shape))]
    if _is_mask(entry):
        _check_mask(entry, axis, shape)
        return [Rows(axis + k, numbers) for k, numbers in enumerate(_true_entries(entry, device))]
    return [Rows(axis, entry.long())]


def _true_entries(mask: Any, device: torch.device | None) -> Sequence[Tensor]:
    """The numbers of the true entries of a mask, axis by axis."""
    if isinstance(mask, Tensor):
        return mask.nonzero(as_tuple=True)
    return [torch.from_numpy(numbers.astype(np.int64)).to(device) for numbers in mask.nonzero()]


def _range(entry: slice, size: int) -> range:
    if entry.step is not None and operator.index(entry.step) < 1:
        raise TensorIndexError(f"a slice came with step {entry.step}.", "Give 1 or more, as in torch.")
    found = range(*entry.indices(size))
    return range(found.start, max(found.start, found.stop), found.step)


def _checked(number: int, axis: int, shape: Sequence[int]) -> int:
    n = shape[axis]
    if not -n <= number < n:
        raise TensorIndexError(
            f"index {number} is out of range for axis {axis} of a tensor of shape {tuple(shape)}.",
            f"Give one from {-n} to {n - 1}." if n else "The axis is empty.",
        )
    return number % n


def _check_mask(mask: Any, axis: int, shape: Sequence[int]) -> None:
    wanted = tuple(shape[axis : axis + mask.ndim])
    if tuple(mask.shape) != wanted:
        raise TensorIndexError(
            f"a mask of shape {tuple(mask.shape)} came for axes of sizes {wanted}.", "They must be the same."
        )


def broadcast(numbers: Sequence[Tensor]) -> list[Tensor]:
    """The arrays of numbers in one shape; raises TensorIndexError if there is none."""
    try:
        return list(torch.broadcast_tensors(*numbers))
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(n.shape)) for n in numbers)
        raise TensorIndexError(
            f"index arrays came with the shapes {shapes}, which do not broadcast.",
            "Arrays are followed together, number by number: for a grid, give [:, None] to the first.",
        ) from error


def digits_of(numbers: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The digits of numbers, negative ones counted from the end; the first has no modulus.

    So the first digit of a number out of range is out of range too.

    >>> [d.tolist() for d in digits_of(torch.tensor([7, -1, 12, -13]), (4, 3))]
    [[2, 3, 4, 4], [1, 2, 0, 0]]
    """
    size = math.prod(sizes)
    numbers = torch.where(numbers < 0, numbers + size, numbers)
    numbers = torch.where(numbers < 0, size, numbers)
    found: list[Tensor] = []
    for n in reversed(sizes[1:]):
        found.append(numbers % n)
        numbers = torch.div(numbers, n, rounding_mode="floor")
    return [numbers, *reversed(found)]
