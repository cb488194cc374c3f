"""Matrices with a single one in each column: what the table of an embedding is multiplied by."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class OneHot:
    """Columns of which each has a one in its own of `size` rows, held as the numbers of these rows.

    Its Gram matrix is diagonal: how often each row has a one. It is held as a vector, never as a matrix.

    >>> OneHot(torch.tensor([2, 0, 2]), 4, torch.float32).sum(-1)
    tensor([1., 0., 2., 0.])
    """

    rows: Int[Tensor, " t"]
    size: int
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.size, len(self.rows)

    def abs(self) -> "OneHot":
        """Itself: its entries are 0 and 1."""
        return self

    def sum(self, axis: int) -> Float[Tensor, " size"]:
        """How many columns have their one in each row; -1 is the only axis."""
        assert axis == -1
        return torch.bincount(self.rows, minlength=self.size).to(self.dtype)
