"""Tensors that are given by a list of entries, whatever is said of those that are not listed.

The list is in the library and on the device of its values. PyTorch's and SciPy's own sparse arrays enter by
`from_coordinates(x.indices(), x.values(), x.shape)` and `from_coordinates(x.coords, x.data, x.shape)`; the
way back is `torch.sparse_coo_tensor(s.indices.T, s.values, s.shape)` and
`scipy.sparse.coo_array((s.values, tuple(s.indices.T)), s.shape)`.
"""

import copy
import operator
from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Self

from jaxtyping import Int, Num

from tenfold.core.arrays import Array, cast, integer_dtype, namespace, values_needed
from tenfold.core.chunked import load
from tenfold.core.errors import ShapeError
from tenfold.core.segments import Segments

SORTED = values_needed("a list of entries", "Make it, and what is made of it, outside jit and vmap.")
"""Decorator of what reads or sorts the indices: inside `jax.jit` they have no values."""


@dataclass(frozen=True, eq=False)
class Entries(ABC):
    """Base class: `values[n]` is the entry at `indices[n]` of a tensor of `shape`.

    Raises:
        ShapeError: if the indices are no integers of shape (n, order), are not as many as the values, or lie
            outside the tensor.
        WeightError: if indices and values belong to different libraries.
    """

    indices: Int[Array, "n order"]
    values: Num[Array, " n"]
    shape: tuple[int, ...]

    @SORTED
    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(operator.index(size) for size in self.shape))
        _check_lengths(self.indices, self.values, self.shape)
        _check_range(self.indices, self.shape)
        object.__setattr__(self, "indices", cast(self.indices, integer_dtype(self.values)))

    @property
    def ndim(self) -> int:
        """Number of modes."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """Dtype of the values."""
        return self.values.dtype

    @property
    def nnz(self) -> int:
        """Number of entries that are listed."""
        return int(self.values.shape[0])

    @property
    def density(self) -> float:
        """The share of the tensor's entries that are listed."""
        return self.nnz / max(1, prod(self.shape))

    @cached_property
    def columns(self) -> tuple[Int[Array, " n"], ...]:
        """The indices of every mode."""
        xp = namespace(self.indices)
        return tuple(xp.asarray(self.indices[:, k], copy=True) for k in range(self.ndim))

    @cached_property
    def _segments(self) -> dict[int, Segments]:
        return {}

    @SORTED
    def segments(self, mode: int) -> Segments:
        """How to sum over the entries of every index of a mode; sorted once and kept."""
        if mode not in self._segments:
            self._segments[mode] = Segments.of(self.columns[mode], self.shape[mode])
        return self._segments[mode]

    @SORTED
    def keys(self, modes: Sequence[int]) -> Int[Array, " n"]:
        """One number for each combination of the indices of these modes, in row-major order.

        Where the product of the sizes is too large for an integer, combinations that no entry has are not
        counted.

        >>> import numpy as np
        >>> from tenfold.core.sparse import Sparse
        >>> Sparse(np.array([[0, 2], [1, 0]]), np.ones(2), (2, 3)).keys((0, 1))
        array([2, 3])
        """
        xp = namespace(self.indices)
        key, span, most = xp.zeros_like(self.columns[0]), 1, int(xp.iinfo(self.indices.dtype).max)
        for k in modes:
            if span * self.shape[k] > most:
                key = cast(xp.unique_inverse(key).inverse_indices, key.dtype)
                span = int(xp.max(key)) + 1
            key, span = key * self.shape[k] + self.columns[k], span * self.shape[k]
        return key

    def map(self, function: Callable[[Array], Array]) -> Self:
        """The same entries with `function`, which acts on each alone, applied to the values."""
        changed = copy.copy(self)  # also copies what was sorted already
        changed.__dict__.pop("coalesced", None)  # which holds sums of the values of before
        object.__setattr__(changed, "values", function(self.values))
        return changed

    @classmethod
    def from_coordinates(
        cls,
        coordinates: Int[Array, "order n"] | Sequence[Array],
        values: Num[Array, " n"],
        shape: Sequence[int],
    ) -> Self:
        """From one list of indices for each mode, which is how PyTorch and SciPy keep them.

        >>> import torch
        >>> from tenfold.core.sparse import Sparse
        >>> x = torch.eye(3).to_sparse()
        >>> Sparse.from_coordinates(x.indices(), x.values(), x.shape).nnz
        3
        """
        return cls(namespace(values).stack(list(coordinates), axis=1), values, tuple(shape))

    @SORTED
    def _scattered(self) -> tuple[Array, Array]:
        """All entries of the tensor, flat, with zeros where none is listed; and how often each is listed."""
        xp = namespace(self.values)
        one = xp.ones_like(self.values)
        plan = Segments.of(self.keys(range(self.ndim)), prod(self.shape))
        both = plan.sum(xp.stack([self.values, one], axis=1))
        return both[:, 0], both[:, 1]


@SORTED
def listed_where(tensor: Array, chosen: Array) -> tuple[Array, Array]:
    """Indices and values of the entries that are chosen; of a Dask array in NumPy."""
    tensor, chosen = load(tensor), load(chosen)
    xp = namespace(tensor, chosen)
    if tensor.ndim == 0:
        raise ShapeError("a tensor without modes cannot be listed.", "Give it one.")
    indices = xp.stack(list(xp.nonzero(chosen)), axis=1)
    flat = xp.nonzero(xp.reshape(chosen, (-1,)))[0]
    return indices, xp.take(xp.reshape(tensor, (-1,)), flat)


def firsts_of_equals(ordered: Array) -> Array:
    """Whether each of a sorted list is the first of its equals."""
    xp = namespace(ordered)
    first = xp.ones_like(ordered[:1], dtype=xp.bool)
    return xp.concat([first, ordered[1:] != ordered[:-1]])


def _check_lengths(indices: Array, values: Array, shape: tuple[int, ...]) -> None:
    xp = namespace(indices, values)
    right = indices.ndim == 2 and values.ndim == 1 and indices.shape[0] == values.shape[0]
    if not right or indices.shape[1] != len(shape) or not shape:
        raise ShapeError(
            f"indices of shape {tuple(indices.shape)} and values of shape {tuple(values.shape)} list no "
            f"entries of a tensor of shape {shape}.",
            f"Give indices of shape (n, {len(shape)}) and n values.",
        )
    if not xp.isdtype(indices.dtype, "integral"):
        raise ShapeError(f"the indices are of {indices.dtype}.", "Give integers.")


def _check_range(indices: Array, shape: tuple[int, ...]) -> None:
    xp = namespace(indices)
    for k, size in enumerate(shape if indices.shape[0] else ()):
        low, high = int(xp.min(indices[:, k])), int(xp.max(indices[:, k]))
        if low < 0 or high >= size:
            raise ShapeError(
                f"mode {k} has size {size}, but indices from {low} to {high}.",
                f"Give indices from 0 to {size - 1}.",
            )
