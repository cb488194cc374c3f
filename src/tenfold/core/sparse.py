"""Tensors that are given by a list of entries: sparse ones, whose other entries are zero, and incomplete
ones, whose other entries are not known.

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

from jaxtyping import Bool, Int, Num

from tenfold.core.arrays import Array, cast, device_of, is_complex, namespace
from tenfold.core.errors import ShapeError, WeightError
from tenfold.core.segments import Segments


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(operator.index(size) for size in self.shape))
        _check_lengths(self.indices, self.values, self.shape)
        _check_range(self.indices, self.shape)
        object.__setattr__(self, "indices", cast(self.indices, _integer(self.values)))

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

    def segments(self, mode: int) -> Segments:
        """How to sum over the entries of every index of a mode; sorted once and kept."""
        if mode not in self._segments:
            self._segments[mode] = Segments.of(self.columns[mode], self.shape[mode])
        return self._segments[mode]

    def keys(self, modes: Sequence[int]) -> Int[Array, " n"]:
        """One number for each combination of the indices of these modes, in row-major order.

        Where the product of the sizes is too large for an integer, combinations that no entry has are not
        counted.

        >>> import numpy as np
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
        >>> x = torch.eye(3).to_sparse()
        >>> Sparse.from_coordinates(x.indices(), x.values(), x.shape).nnz
        3
        """
        return cls(namespace(values).stack(list(coordinates), axis=1), values, tuple(shape))

    def _scattered(self) -> tuple[Array, Array]:
        """All entries of the tensor, flat, with zeros where none is listed; and how often each is listed."""
        xp = namespace(self.values)
        one = xp.ones_like(self.values)
        plan = Segments.of(self.keys(range(self.ndim)), prod(self.shape))
        both = plan.sum(xp.stack([self.values, one], axis=1))
        return both[:, 0], both[:, 1]


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
        return cls(*_listed(tensor, tensor != 0), tuple(tensor.shape))

    def dense(self) -> Num[Array, "*shape"]:
        """The tensor with its zeros."""
        return namespace(self.values).reshape(self._scattered()[0], self.shape)

    def norm(self) -> Num[Array, ""]:
        """Frobenius norm."""
        return namespace(self.values).linalg.vector_norm(self.coalesced.values)

    @cached_property
    def coalesced(self) -> "Sparse":
        """The same tensor with every entry listed once, by the sum of what was listed."""
        xp, keys = namespace(self.values), self.keys(range(self.ndim))
        order = xp.argsort(keys, stable=True)
        first = _firsts(xp.take(keys, order))
        if bool(xp.all(first)):
            return self
        label = xp.cumulative_sum(cast(first, self.indices.dtype)) - 1
        indices = xp.take(self.indices, xp.take(order, xp.nonzero(first)[0]), axis=0)
        summed = Segments.of(label, indices.shape[0]).sum(xp.take(self.values, order)[:, None])[:, 0]
        return Sparse(indices, summed, self.shape)


@dataclass(frozen=True, eq=False)
class Incomplete(Entries):
    """A tensor of which only the listed entries are known; every entry is listed once.

    Raises, beside what every list of entries does:
        WeightError: if an entry is listed twice, or none is listed.

    >>> import numpy as np
    >>> x = Incomplete.from_nan(np.array([[1.0, np.nan], [np.nan, 4.0]]))
    >>> x.nnz, x.dense(0.0)
    (2, array([[1., 0.],
           [0., 4.]]))
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nnz == 0:
            raise WeightError("no entry of the incomplete tensor is known.", "List what is known.")
        keys = namespace(self.indices).sort(self.keys(range(self.ndim)))
        twice = self.nnz - int(namespace(keys).sum(cast(_firsts(keys), keys.dtype)))
        if twice:
            raise WeightError(
                f"{twice} of the {self.nnz} entries of the incomplete tensor are listed again.",
                "List every entry once: it is not clear which of two values is meant, or their mean.",
            )

    @classmethod
    def from_mask(cls, tensor: Num[Array, "*shape"], mask: Bool[Array, "*shape"]) -> Self:
        """The entries of `tensor` where `mask` is true; the others are not looked at.

        Raises:
            ShapeError: unless `mask` holds booleans and has the shape of the tensor.
        """
        if tuple(mask.shape) != tuple(tensor.shape) or not namespace(mask).isdtype(mask.dtype, "bool"):
            raise ShapeError(
                f"expected a mask of booleans of shape {tuple(tensor.shape)}, but got {mask.dtype} "
                f"of shape {tuple(mask.shape)}.",
                "True says that an entry is known.",
            )
        return cls(*_listed(tensor, mask), tuple(tensor.shape))

    @classmethod
    def from_nan(cls, tensor: Num[Array, "*shape"]) -> Self:
        """The entries of `tensor` that are not NaN."""
        return cls.from_mask(tensor, ~namespace(tensor).isnan(tensor))

    def dense(self, fill: Any) -> Num[Array, "*shape"]:
        """The tensor with `fill`, a number or an array of its shape, where it is not known."""
        xp = namespace(self.values)
        listed, count = (xp.reshape(x, self.shape) for x in self._scattered())
        return xp.where(_real(count) > 0.5, listed, xp.asarray(fill, dtype=listed.dtype))

    def norm(self) -> Num[Array, ""]:
        """Frobenius norm of what is known."""
        return namespace(self.values).linalg.vector_norm(self.values)

    def check_known(self) -> None:
        """Refuse a tensor one of whose slices is all unknown: nothing says what its factors should hold.

        Raises:
            WeightError: names the mode and the first such index.

        >>> import numpy as np
        >>> Incomplete(np.array([[0, 0], [0, 1]]), np.ones(2), (2, 2)).check_known()
        Traceback (most recent call last):
        tenfold.core.errors.WeightError: index 1 of mode 0 has no known entry (1 of its 2 indices have none).
        Leave it out of the tensor: nothing says what it should hold.
        """
        xp = namespace(self.indices)
        for k, size in enumerate(self.shape):
            ordered = xp.sort(self.columns[k])
            each = xp.arange(size + 1, dtype=ordered.dtype, device=device_of(ordered))
            starts = xp.searchsorted(ordered, each)
            empty = xp.nonzero(starts[1:] == starts[:-1])[0]
            if count := empty.shape[0]:
                raise WeightError(
                    f"index {int(empty[0])} of mode {k} has no known entry "
                    f"({count} of its {size} indices have none).",
                    "Leave it out of the tensor: nothing says what it should hold.",
                )


def _listed(tensor: Array, chosen: Array) -> tuple[Array, Array]:
    """Indices and values of the entries that are chosen."""
    xp = namespace(tensor, chosen)
    if tensor.ndim == 0:
        raise ShapeError("a tensor without modes cannot be listed.", "Give it one.")
    indices = xp.stack(list(xp.nonzero(chosen)), axis=1)
    flat = xp.nonzero(xp.reshape(chosen, (-1,)))[0]
    return indices, xp.take(xp.reshape(tensor, (-1,)), flat)


def _firsts(ordered: Array) -> Array:
    """Whether each of a sorted list is the first of its equals."""
    xp = namespace(ordered)
    first = xp.ones_like(ordered[:1], dtype=xp.bool)
    return xp.concat([first, ordered[1:] != ordered[:-1]])


def _real(x: Array) -> Array:
    return namespace(x).real(x) if is_complex(x) else x


def _integer(like: Array) -> Any:
    """The integers in which a library counts, which its default is; 64 bits but where JAX has them off."""
    return namespace(like).asarray(0).dtype


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
