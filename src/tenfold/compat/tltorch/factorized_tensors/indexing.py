"""Indices of factorized tensors: one item for each mode, each acting on its own."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.core.errors import ShapeError
from tenfold.formats.graphs import expanded
from tenfold.nn import RowError

Item = int | slice | Tensor
WHOLE = slice(None)


def items_of(index: Any, shape: Sequence[int]) -> list[Item]:
    """An index as one item for each mode: an int from 0 on, a slice, or a vector of indices from 0 on.

    Raises:
        RowError: for an index that is out of range.
        ShapeError: for anything that is no index of one mode.

    >>> items_of((slice(1, None), -1), (4, 3, 2))
    [slice(1, None, None), 2, slice(None, None, None)]
    >>> items_of((..., [0, -1]), (4, 3, 2))
    [slice(None, None, None), slice(None, None, None), tensor([0, 1])]
    """
    if isinstance(index, list):
        index = (index,)
    return [
        _item(item, n, k) for k, (item, n) in enumerate(zip(expanded(index, len(shape)), shape, strict=True))
    ]


def _item(item: Any, size: int, mode: int) -> Item:
    if isinstance(item, tuple) and not item:
        return WHOLE
    if isinstance(item, slice):
        if item.step is not None and item.step < 1:
            raise ShapeError(
                f"mode {mode} was indexed with the step {item.step}.", "Give a step of 1 or more."
            )
        return item
    if isinstance(item, bool):
        raise ShapeError(f"mode {mode} cannot be indexed with {item}.", "Give an int, a slice or a vector.")
    if isinstance(item, list | tuple | np.ndarray | range):
        item = torch.as_tensor(np.asarray(item))
    if isinstance(item, Tensor) and item.ndim == 1:
        return _vector(item, size, mode)
    try:
        k = operator.index(item)
    except TypeError:
        raise ShapeError(
            f"mode {mode} cannot be indexed with {item!r}.", "Give an int, a slice or a vector of ints."
        ) from None
    if not -size <= k < size:
        raise RowError(
            f"index {k} is out of range for mode {mode} of size {size}.", "Count from 0, or from -1."
        )
    return k % size


def _vector(item: Tensor, size: int, mode: int) -> Tensor:
    if item.dtype == torch.bool:
        if len(item) != size:
            raise ShapeError(f"a mask of {len(item)} came for mode {mode} of size {size}.")
        return item.nonzero().squeeze(-1)
    if item.numel() and (item.is_floating_point() or item.is_complex()):
        raise ShapeError(f"mode {mode} was indexed with {item.dtype} numbers.", "Give whole numbers.")
    item = item.long()
    outside = (item < -size) | (item >= size)
    if item.device.type == "cpu" and not torch.compiler.is_compiling() and bool(outside.any()):
        raise RowError(
            f"an index is out of range for mode {mode} of size {size}.", "Count from 0, or from -1."
        )
    return torch.where(item < 0, item + size, item)


def digits(item: int | Tensor, sizes: Sequence[int]) -> list[Any]:
    """An index of a mode as one for each of the sizes that it is split into, the most significant first.

    >>> digits(7, (2, 3, 2)), digits(torch.tensor([7, 11]), (4, 3))
    ([1, 0, 1], [tensor([2, 3]), tensor([1, 2])])
    """
    found = []
    for k, n in enumerate(sizes):
        below = math.prod(sizes[k + 1 :])
        found.append(item // below % n)
    return found


def listed(item: slice | Tensor, size: int, device: Any) -> Tensor:
    """A slice or vector as a vector on a device."""
    if isinstance(item, slice):
        return torch.arange(*item.indices(size), device=device)
    return item.to(device)
