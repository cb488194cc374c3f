"""Passes over the chunks of a Dask array that is larger than memory.

A pass loads columns of chunks: all of the modes that become rows of an unfolding, and one chunk of the
others. At most `AT_ONCE` bytes of them are in work together; what a pass leaves (Gram matrices, projections,
norms) is in NumPy, in float64 or complex128 whatever the dtype of the chunks. Chunks are made anew for every
pass: an array that is expensive to make should be written to disk first.
"""

import importlib
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Num

from tenfold.core import chunked
from tenfold.core.arrays import Array, is_complex

AT_ONCE = 2**30
"""Bytes of chunks that a pass works on at once, of which there may be a copy; more if a chunk is larger."""

COLUMNS = 4
"""Columns that a pass has in work at once for each core."""

Slices = tuple[slice, ...]
Modes = tuple[int, ...]
T = TypeVar("T")


def gram(
    x: Num[Array, "..."], rows: Modes, left: Num[np.ndarray, "k n"] | None = None
) -> Num[np.ndarray, "k k"]:
    """M Mᴴ for the unfolding M whose rows are the modes `rows`, or for `left` @ M, in one pass."""
    return grams(x, [rows], left)[0]


def grams(
    x: Num[Array, "..."], sides: Sequence[Modes], left: Num[np.ndarray, "k n"] | None = None
) -> list[Num[np.ndarray, "k k"]]:
    """The Gram matrices of several unfoldings in the same pass, which loads columns that are whole in all."""
    total: list[Any] = [0.0] * len(sides)
    whole = {k for rows in sides for k in rows}
    for _, parts in over(x, whole, _Grams(tuple(sides), wide(x), left)):
        total = [t + part for t, part in zip(total, parts, strict=True)]
    return total


@dataclass(frozen=True, eq=False)
class _Grams:
    """The Gram matrices of the unfoldings of a column."""

    sides: tuple[Modes, ...]
    dtype: Any
    left: Num[np.ndarray, "k n"] | None

    def __call__(self, column: Num[np.ndarray, "..."], place: Slices) -> list[Num[np.ndarray, "k k"]]:
        return [self.gram(unfolded(column, rows, self.dtype)) for rows in self.sides]

    def gram(self, matrix: Num[np.ndarray, "n c"]) -> Num[np.ndarray, "k k"]:
        matrix = matrix if self.left is None else self.left @ matrix
        return matrix @ (matrix.T.conj() if np.iscomplexobj(matrix) else matrix.T)


def project(x: Num[Array, "..."], basis: Num[np.ndarray, "n r"], rows: Modes) -> Num[Array, "r *others"]:
    """Bᴴ M for the unfolding M whose rows are the modes `rows`, with the other modes as they were.

    Computed into NumPy in one pass where it is not larger than `chunked.IN_MEMORY`; else it is a Dask array,
    of which nothing is computed.
    """
    others = [k for k in range(x.ndim) if k not in rows]
    shape = (basis.shape[1], *(x.shape[k] for k in others))
    basis = np.asarray(basis, dtype=wide(x))
    if math.prod(shape) * basis.itemsize > chunked.IN_MEMORY:
        factor = chunked.store(basis.conj().reshape(*(x.shape[k] for k in rows), -1))
        return (
            importlib.import_module("dask.array")
            .tensordot(factor, x, axes=(tuple(range(len(rows))), tuple(rows)))
            .astype(wide(x))
        )
    result = np.zeros(shape, dtype=wide(x))
    parts = basis.conj().reshape(*(x.shape[k] for k in rows), -1)
    for place, part in over(x, (), _Projection(rows, parts)):
        result[(slice(None), *(place[k] for k in others))] += part
    return result


@dataclass(frozen=True, eq=False)
class _Projection:
    """The part of a projection that comes from one chunk; `basis` has an axis for each of `rows`."""

    rows: Modes
    basis: Num[np.ndarray, "*rows r"]

    def __call__(self, chunk: Num[np.ndarray, "..."], place: Slices) -> Num[np.ndarray, "r *others"]:
        part = self.basis[tuple(place[k] for k in self.rows)]
        product = part.reshape(-1, part.shape[-1]).T @ unfolded(chunk, self.rows, part.dtype)
        return product.reshape(-1, *(n for k, n in enumerate(chunk.shape) if k not in self.rows))


def project_all(
    x: Num[Array, "..."], bases: Sequence[Num[np.ndarray, "n r"] | None]
) -> Num[np.ndarray, "*ranks"]:
    """x ×₁ B₁ᴴ ×₂ B₂ᴴ …, modes without a basis as they were, in one pass; of any size, in NumPy."""
    shape = tuple(n if b is None else b.shape[1] for n, b in zip(x.shape, bases, strict=True))
    result = np.zeros(shape, dtype=wide(x))
    for place, part in over(x, (), _Core(tuple(bases), wide(x))):
        result[tuple(s if b is None else slice(None) for s, b in zip(place, bases, strict=True))] += part
    return result


@dataclass(frozen=True, eq=False)
class _Core:
    """The part of a core that comes from one chunk."""

    bases: tuple[Num[np.ndarray, "n r"] | None, ...]
    dtype: Any

    def __call__(self, chunk: Num[np.ndarray, "..."], place: Slices) -> Num[np.ndarray, "..."]:
        for k, (basis, at) in enumerate(zip(self.bases, place, strict=True)):
            if basis is not None:
                product = basis[at].conj().T.astype(self.dtype) @ unfolded(chunk, (k,), self.dtype)
                rest = [n for m, n in enumerate(chunk.shape) if m != k]
                chunk = np.moveaxis(product.reshape(-1, *rest), 0, k)
        return chunk


def outside(x: Num[Array, "..."], basis: Num[np.ndarray, "n r"], k: int) -> float:
    """‖x - x ×ₖ B Bᴴ‖ for an orthonormal basis B of mode k, in one pass over columns."""
    return math.sqrt(math.fsum(square for _, square in over(x, (k,), _Outside(k, basis, wide(x)))))


@dataclass(frozen=True, eq=False)
class _Outside:
    """The squared norm of what a projection takes from a column."""

    mode: int
    basis: Num[np.ndarray, "n r"]
    dtype: Any

    def __call__(self, column: Num[np.ndarray, "..."], place: Slices) -> float:
        matrix = unfolded(column, (self.mode,), self.dtype)
        return float(np.linalg.norm(matrix - self.basis @ (self.basis.conj().T @ matrix))) ** 2


def largest(x: Num[Array, "..."]) -> float:
    """The largest absolute value of an entry, in one pass."""
    return max(part for _, part in over(x, (), _largest))


def _largest(chunk: Num[np.ndarray, "..."], place: Slices) -> float:
    return float(np.max(np.abs(chunk)))


def norm(x: Num[Array, "..."]) -> float:
    """The Frobenius norm, in one pass."""
    return math.sqrt(math.fsum(part for _, part in over(x, (), _Distance(None, wide(x)))))


def distance(x: Num[Array, "..."], part: Callable[[Slices], Num[np.ndarray, "..."]]) -> float:
    """‖x - y‖ for a y that is given by its parts, in one pass; `part` runs in the workers of Dask."""
    return math.sqrt(math.fsum(square for _, square in over(x, (), _Distance(part, wide(x)))))


@dataclass(frozen=True)
class _Distance:
    """The squared distance of a chunk from another array, or from 0."""

    part: Callable[[Slices], Num[np.ndarray, "..."]] | None
    dtype: Any

    def __call__(self, chunk: Num[np.ndarray, "..."], place: Slices) -> float:
        difference = np.asarray(chunk if self.part is None else chunk - self.part(place), dtype=self.dtype)
        return float(np.vdot(difference, difference).real)


def wide(x: Num[Array, "..."]) -> Any:
    """The dtype in which passes calculate: complex128 for a complex array, float64 for all others."""
    return np.complex128 if is_complex(x) else np.float64


# Columns of chunks ------------------------------------------------------------------------------------------


def over(
    x: Num[Array, "..."], whole: Iterable[int], function: Callable[[Num[np.ndarray, "..."], Slices], T]
) -> Iterator[tuple[Slices, T]]:
    """Where each column is, and `function` of it, batch after batch."""
    dask = importlib.import_module("dask")
    task = dask.delayed(function, pure=False)
    for batch in _batches(x, frozenset(whole)):
        yield from zip(batch, dask.compute(*(task(_one_chunk(x[at]), at) for at in batch)), strict=True)


def _one_chunk(x: Num[Array, "..."]) -> Any:
    return x.rechunk(-1).to_delayed().item()


def unfolded(column: Num[np.ndarray, "..."], rows: Modes, dtype: Any) -> Num[np.ndarray, "n c"]:
    """The matrix whose rows are the modes `rows`, in `dtype`."""
    size = math.prod(column.shape[k] for k in rows)
    return np.moveaxis(column, rows, range(len(rows))).reshape(size, -1).astype(dtype, copy=False)


def _batches(x: Num[Array, "..."], whole: Collection[int]) -> Iterator[list[Slices]]:
    """The columns of `x`, as many at once as `AT_ONCE` allows.

    And no more than a few for each core: the columns of a projection that is not computed are small, but
    what they are made of is not.
    """
    batch: list[Slices] = []
    held, most = 0, COLUMNS * (os.cpu_count() or 1)
    for place in _columns(x, whole):
        size = math.prod(s.stop - s.start for s in place) * np.dtype(wide(x)).itemsize
        if batch and (held + size > AT_ONCE or len(batch) >= most):
            yield batch
            batch, held = [], 0
        batch.append(place)
        held += size
    yield batch


def _columns(x: Num[Array, "..."], whole: Collection[int]) -> Iterator[Slices]:
    """Where the columns are: all of the modes `whole`, and one chunk of the others, or a part of one."""
    ranges = [[(0, n)] if k in whole else _intervals(x.chunks[k]) for k, n in enumerate(x.shape)]
    parts = column_parts(x, whole)
    for k in (k for k in range(x.ndim) if k not in whole):
        longest = max(stop - start for start, stop in ranges[k])
        ranges[k] = [piece for start, stop in ranges[k] for piece in _split(start, stop, parts)]
        parts = math.ceil(parts / min(parts, longest))
    return (tuple(slice(*interval) for interval in place) for place in product(*ranges))


def column_parts(x: Num[Array, "..."], whole: Collection[int]) -> int:
    """Into how many parts a column is cut so that one is below `AT_ONCE`: so often is every chunk made again,
    unless it is read from a file that can be read in parts.

    >>> import dask.array as da
    >>> column_parts(da.zeros((5000, 200, 200), chunks=200), (0,))  # 1600 MB
    2
    """
    if all(x.numblocks[k] == 1 for k in whole):
        return 1
    size = math.prod(x.shape[k] if k in whole else max(x.chunks[k]) for k in range(x.ndim))
    return math.ceil(size * np.dtype(wide(x)).itemsize / AT_ONCE)


def _intervals(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Where chunks start and stop, without the empty ones."""
    ends = np.cumsum(sizes).tolist()
    return [(end - size, end) for size, end in zip(sizes, ends, strict=True) if size]


def _split(start: int, stop: int, parts: int) -> Iterator[tuple[int, int]]:
    """An interval in so many parts of nearly the same length, fewer if it is short."""
    parts = min(parts, stop - start)
    ends = [start + (stop - start) * k // parts for k in range(parts + 1)]
    return pairwise(ends)
