"""Running sums of tensors and of symmetric products, wide enough for any number of batches."""

import torch
from jaxtyping import Float
from torch import Tensor

from tenfold.compress.calibration.one_hot import OneHot

ROWS = 256
"""Rows of a block of a symmetric matrix; of each block the part from the diagonal on is held."""


class Sums:
    """Sums of tensors by name, in float64 where the device has it; means return in the type that came.

    >>> sums = Sums()
    >>> sums.add("x", torch.tensor([1.0, 2.0]))
    >>> sums.add_gram("xx", torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    >>> sums.mean_(2)
    {'x': tensor([0.5000, 1.0000]), 'xx': tensor([[2.5000, 1.0000],
            [1.0000, 0.5000]])}
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.blocks: dict[str, list[Tensor]] = {}
        self.dtypes: dict[str, torch.dtype] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add a tensor to its sum; nothing waits for the device."""
        if name in self.totals:
            self.totals[name] += value
        else:
            self.totals[name], self.dtypes[name] = _wide(value), value.dtype

    def add_gram(self, name: str, matrix: Float[Tensor, "*g n t"] | OneHot, weight: float = 1.0) -> None:
        """Add `weight` times matrix @ matrixᵀ, which costs little more than half the time and memory.

        Where that is diagonal, as for one-hot columns, its diagonal is added.
        """
        if isinstance(matrix, OneHot):
            return self.add(name, matrix.sum(-1) * weight)
        n = matrix.shape[-2]
        starts = range(0, n, ROWS)
        products = (matrix[..., i : i + ROWS, :] @ matrix[..., i:, :].mT for i in starts)
        if name in self.blocks:
            for total, product in zip(self.blocks[name], products, strict=True):
                total.add_(product, alpha=weight)
        else:
            self.blocks[name] = [_wide(product).mul_(weight) for product in products]
            self.dtypes[name] = matrix.dtype

    def all(self) -> list[Tensor]:
        """Every tensor that is held."""
        return [*self.totals.values(), *(block for blocks in self.blocks.values() for block in blocks)]

    def mean_(self, count: int) -> dict[str, Tensor]:
        """Sums over `count`. They are given up one by one: both together would take twice the memory."""
        plain = {n: (self.totals.pop(n) / count).to(self.dtypes[n]) for n in list(self.totals)}
        return plain | {n: _whole(self.blocks.pop(n), count, self.dtypes[n]) for n in list(self.blocks)}


def _wide(value: Tensor) -> Tensor:
    """A copy in float64; in its own type where the device has no float64."""
    return value.to(value.dtype if value.device.type == "mps" else torch.float64, copy=True)


def _whole(blocks: list[Tensor], count: int, dtype: torch.dtype) -> Float[Tensor, "*g n n"]:
    """The symmetric matrix of which the rows of each block hold the part from the diagonal on."""
    n = blocks[0].shape[-1]
    found = blocks[0].new_empty((*blocks[0].shape[:-2], n, n), dtype=dtype)
    for block in blocks:
        start = n - block.shape[-1]
        end = start + block.shape[-2]
        found[..., start:end, start:] = block / count
        found[..., end:, start:end] = found[..., start:end, end:].mT
    return found
