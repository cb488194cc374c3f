"""Bags of rows: sums, means and maxima over them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tenfold.core.errors import ShapeError


def check_starts(starts: Int[Tensor, " bags"], n: int) -> None:
    """Raise ShapeError unless bags begin at 0, one after the other, within `n` rows.

    On a CPU only, where a look does not wait, and not while a graph is made or functions are transformed.

    >>> check_starts(torch.tensor([0, 5]), 3)
    Traceback (most recent call last):
    tenfold.core.errors.ShapeError: the offsets are tensor([0, 5]), for 3 indices.
    Let them begin with 0, never fall, and end with 3 at most.
    """
    if starts.device.type != "cpu" or torch.compiler.is_compiling() or not len(starts):
        return
    try:
        wrong = bool((starts[0] != 0) | (starts[-1] > n) | (starts.diff() < 0).any())
    except RuntimeError:  # torch.func shows no values
        return
    if wrong:
        raise ShapeError(
            f"the offsets are {starts}, for {n} indices.",
            f"Let them begin with 0, never fall, and end with {n} at most.",
        )


@dataclass(frozen=True, eq=False)
class Bags:
    """Which rows belong together, and their `weights` in sums.

    Either `lengths` has the number of bags and that of the rows in each, or `starts` says where each bag
    begins, and with `ends` where the last one ends.

    >>> rows = torch.tensor([[1.0], [2.0], [4.0]])
    >>> Bags(starts=torch.tensor([0, 0, 2])).sums(rows).tolist(), Bags((1, 3)).largest(rows).tolist()
    ([[0.0], [3.0], [4.0]], [[4.0]])
    """

    lengths: tuple[int, int] | None = None
    starts: Int[Tensor, " bags"] | None = None
    ends: bool = False
    weights: Float[Tensor, " n"] | None = None

    def sums(self, rows: Float[Tensor, "n rest"]) -> Float[Tensor, "bags rest"]:
        """The weighted sum of the rows of each bag; 0 for a bag without any."""
        if self.weights is not None:
            rows = rows * self.weights.to(rows.dtype).unsqueeze(-1)
        if self.lengths is not None:
            return rows.reshape(*self.lengths, rows.shape[1]).sum(1)
        numbers, count = self._numbers(rows)
        return self._ended(rows.new_zeros(count, rows.shape[1]).index_add(0, numbers, rows))

    def counts(self, n: int, left_out: Bool[Tensor, " n"] | None, like: Tensor) -> Float[Tensor, "bags 1"]:
        """How many of `n` rows, of those that are not left out, each bag has; in the dtype of `like`."""
        ones = like.new_ones(n, 1) if left_out is None else (~left_out).to(like.dtype).unsqueeze(-1)
        return Bags(self.lengths, self.starts, self.ends).sums(ones)

    def largest(
        self, rows: Float[Tensor, "n rest"], left_out: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "bags rest"]:
        """The largest entry in each column of each bag, without rows that are left out; 0 if none is left."""
        if left_out is not None:
            rows = rows.masked_fill(left_out.unsqueeze(-1), -torch.inf)
        if self.lengths is None:
            numbers, count = self._numbers(rows)
            floor = rows.new_full((count, rows.shape[1]), -torch.inf)
            places = numbers.unsqueeze(-1).expand_as(rows)
            found = self._ended(floor.scatter_reduce(0, places, rows, "amax"))
        elif self.lengths[1] == 0:
            return rows.new_zeros(self.lengths[0], rows.shape[1])
        else:
            found = rows.reshape(*self.lengths, rows.shape[1]).amax(1)
        return torch.where(self.counts(rows.shape[0], left_out, rows) > 0, found, torch.zeros_like(found))

    def of_table(
        self,
        numbers: Int[Tensor, " n"],
        table: Float[Tensor, "rows rest"],
        left_out: Bool[Tensor, " n"] | None,
        sparse: bool,
    ) -> Float[Tensor, "bags rest"]:
        """The sums of rows of a table, which are not written one by one."""
        weights = self.weights
        if left_out is not None:
            kept = (~left_out).to(table.dtype)
            weights = kept if weights is None else kept * weights.to(table.dtype)
        weights = None if weights is None else weights.to(table.dtype)
        if self.lengths is not None and self.lengths[1] == 0:
            return table.new_zeros(self.lengths[0], table.shape[1])
        if self.lengths is not None:
            numbers = numbers.reshape(self.lengths)
            weights = None if weights is None else weights.reshape(self.lengths)
        starts = None if self.starts is None else self.starts.to(numbers.dtype)
        return F.embedding_bag(
            numbers, table, starts, mode="sum", sparse=sparse, per_sample_weights=weights,
            include_last_offset=self.ends,
        )  # fmt: skip

    def _numbers(self, rows: Tensor) -> tuple[Int[Tensor, " n"], int]:
        """The bag of each row, and the number of bags; what follows after the end of the last is one more."""
        assert self.starts is not None
        places = torch.arange(rows.shape[0], dtype=self.starts.dtype, device=rows.device)
        return torch.searchsorted(self.starts, places, right=True) - 1, self.starts.shape[0]

    def _ended(self, found: Tensor) -> Tensor:
        return found[:-1] if self.ends else found
