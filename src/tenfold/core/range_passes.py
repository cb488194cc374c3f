"""Leading left singular vectors of a Dask array larger than memory, by random combinations of its columns."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Num

from tenfold.core import chunked, passes
from tenfold.core.arrays import Array, is_chunked
from tenfold.core.leading_passes import Cut, check_norm, leading, length, spectrum
from tenfold.core.passes import Modes, Slices
from tenfold.core.svd import fix_signs

PIECE = 2**20
"""Random numbers that are drawn at once."""


@dataclass(frozen=True)
class RangePasses:
    """The basis of `core.range_finder.RangeFinder` in 2 + `power_iterations` passes; one more for each of
    these where columns of chunks are too large (see `passes.column_parts`), and one more where rank +
    `oversampling` combinations of the rows are too large for memory.

    The first pass needs no columns of chunks at all. For a tolerance the Gram matrix is taken instead, as
    `leading_passes.leading` does: growing a random basis until it suffices would take many more passes.
    """

    oversampling: int
    power_iterations: int
    generator: np.random.Generator

    def __call__(
        self, x: Num[Array, "..."], rows: Modes, rank: int, tol: float = 0.0, whole: float | None = None
    ) -> Cut:
        """As `leading_passes.leading`; X Ω, with a normal matrix Ω, brings the norm of X with it."""
        others = tuple(k for k in range(x.ndim) if k not in rows)
        width, short = rank + self.oversampling, min(length(x, rows), length(x, others))
        if tol > 0 or width >= short:
            return leading(x, rows, rank, tol, whole)
        columns, own = sketch(x, rows, width, int(self.generator.integers(2**63)))
        check_norm(x, own)
        basis = np.linalg.qr(columns)[0]
        for _ in range(self.power_iterations):
            basis = np.linalg.qr(_powered(x, rows, others, basis))[0]
        return _cut(passes.project(x, basis, rows), basis, rank, own)


def _cut(image: Num[Array, "w ..."], basis: Num[np.ndarray, "n w"], rank: int, whole: float) -> Cut:
    """The leading left singular vectors of Q (Qᴴ X), and with them their product with X."""
    if is_chunked(image):
        gram = passes.gram(image, (0,))
    else:
        flat = image.reshape(image.shape[0], -1)
        gram = flat @ flat.conj().T
    vectors, s = spectrum(gram)
    turned = basis @ vectors[:, :rank]
    signed = fix_signs(turned, turned.T)[0]
    projection = None
    if not is_chunked(image):
        projection = np.tensordot((basis.conj().T @ signed).conj().T, image, 1)
    kept = float(np.linalg.norm(s[:rank]))
    return Cut(signed, math.sqrt(max((whole - kept) * (whole + kept), 0.0)), whole, projection)


def sketch(x: Num[Array, "..."], rows: Modes, width: int, seed: int) -> tuple[Num[np.ndarray, "n w"], float]:
    """X Ω for the unfolding X whose rows are the modes `rows`, and ‖X‖, in one pass over single chunks.

    Ω is drawn anew with every chunk from the seed and the place among the other modes, and never held.

    >>> import dask.array as da
    >>> columns, norm = sketch(da.ones((4, 6), chunks=2), (0,), 3, seed=0)
    >>> columns.shape, round(norm, 12) == round(24**0.5, 12)
    ((4, 3), True)
    """
    total = np.zeros((*(x.shape[k] for k in rows), width), dtype=passes.wide(x))
    squares = []
    for place, (part, square) in passes.over(x, (), _Sketch(rows, width, seed, passes.wide(x))):
        at = tuple(place[k] for k in rows)
        total[at] += part.reshape(total[at].shape)
        squares.append(square)
    return total.reshape(-1, width), math.sqrt(math.fsum(squares))


@dataclass(frozen=True)
class _Sketch:
    """The part of X Ω that comes from one chunk, and its squared norm."""

    rows: Modes
    width: int
    seed: int
    dtype: Any

    def __call__(self, chunk: Num[np.ndarray, "..."], place: Slices) -> tuple[np.ndarray, float]:
        matrix = passes.unfolded(chunk, self.rows, self.dtype)
        others = [s.start for k, s in enumerate(place) if k not in self.rows]
        source = np.random.default_rng([self.seed, *others])
        step = max(1, PIECE // self.width)
        total = np.zeros((matrix.shape[0], self.width), dtype=self.dtype)
        for start in range(0, matrix.shape[1], step):
            piece = matrix[:, start : start + step]
            total += piece @ source.standard_normal((piece.shape[1], self.width))
        return total, float(np.linalg.norm(matrix)) ** 2


def _powered(
    x: Num[Array, "..."], rows: Modes, others: Modes, basis: Num[np.ndarray, "n w"]
) -> Num[np.ndarray, "n w"]:
    """X Xᴴ Q: in one pass over columns where these fit, else in one for Xᴴ Q and one for X."""
    others_size = math.prod(x.shape[k] for k in others) * basis.itemsize
    if passes.column_parts(x, rows) == 1 or others_size * basis.shape[1] > chunked.IN_MEMORY:
        total = np.zeros_like(basis)
        for _, part in passes.over(x, rows, _Power(rows, basis)):
            total += part
        return total
    image = passes.project(x, basis, rows)
    dual = np.linalg.qr(image.reshape(image.shape[0], -1).conj().T)[0]
    return passes.project(x, dual.conj(), others).reshape(basis.shape[1], -1).T


@dataclass(frozen=True, eq=False)
class _Power:
    """M Mᴴ Q for a column M."""

    rows: Modes
    basis: Num[np.ndarray, "n w"]

    def __call__(self, column: Num[np.ndarray, "..."], place: Slices) -> Num[np.ndarray, "n w"]:
        matrix = passes.unfolded(column, self.rows, self.basis.dtype)
        return matrix @ (matrix.conj().T @ self.basis)
