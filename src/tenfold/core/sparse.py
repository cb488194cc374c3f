"""Sparse tensors: a list of entries, beside which all others are zero."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from jaxtyping import Num

from tenfold.core.arrays import Array, cast, namespace
from tenfold.core.entries import SORTED, Entries, firsts_of_equals, listed_where
from tenfold.core.segments import Segments


@dataclass(frozen=True, eq=False)
class Sparse(Entries):
    """A tensor whose entries are zero but for those listed; entries that are listed twice add up.

    >>> import numpy as np
    >>> Sparse(np.array([[0, 1], [0, 1]]), np.array([1.0, 2.0]), (2, 2)).dense()
    array([[0., 3.],
           [0., 0.]])
    """

    @classmethod
    def from_dense(cls, tensor: Num[Array, "*shape"]) -> Self:
        """The entries of `tensor` that are not zero."""
        return cls(*listed_where(tensor, tensor != 0), tuple(tensor.shape))

    def dense(self) -> Num[Array, "*shape"]:
        """The tensor with its zeros."""
        return namespace(self.values).reshape(self._scattered()[0], self.shape)

    def norm(self) -> Num[Array, ""]:
        """Frobenius norm."""
        return namespace(self.values).linalg.vector_norm(self.coalesced.values)

    @cached_property
    @SORTED
    def coalesced(self) -> "Sparse":
        """The same tensor with every entry listed once, by the sum of what was listed."""
        xp, keys = namespace(self.values), self.keys(range(self.ndim))
        order = xp.argsort(keys, stable=True)
        first = firsts_of_equals(xp.take(keys, order))
        if bool(xp.all(first)):
            return self
        label = xp.cumulative_sum(cast(first, self.indices.dtype)) - 1
        indices = xp.take(self.indices, xp.take(order, xp.nonzero(first)[0]), axis=0)
        summed = Segments.of(label, indices.shape[0]).sum(xp.take(self.values, order)[:, None])[:, 0]
        return Sparse(indices, summed, self.shape)
