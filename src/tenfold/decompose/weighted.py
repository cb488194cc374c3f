"""Decompositions in the inner product that data give a weight, for every format by one mechanism.

With a positive semidefinite moment M_k for each mode, the squared norm of a tensor E is

    ⟨E, E ×₀ M₀ ×₁ M₁ …⟩ = ‖E ×₀ R₀ ×₁ R₁ …‖²,     R_kᴴ R_k = M_k,

so a tensor is whitened by the roots R_k, decomposed, and its factors are un-whitened by their inverses:
multilinear formats are closed under products with matrices. For low rank this is the exact optimum, and one
of the two moments need not be inverted: see `output_pca`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jaxtyping import Float

from tenfold.algebra import multi_mode_dot
from tenfold.core.arrays import (
    Array,
    adjoint,
    cast_like,
    device_of,
    epsilon,
    is_chunked,
    is_complex,
    namespace,
    to_compute,
)
from tenfold.core.chunked import load, load_generator, store
from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.linalg import gram_accuracy
from tenfold.decompose.base import Fit, Method, in_dtype_of, settled
from tenfold.decompose.output_pca import evened, output_root, projected
from tenfold.formats import Format, LowRank, Ranks


@dataclass(frozen=True, eq=False)
class Root:
    """A square root of a damped moment and its inverse, in the eigenbasis; calculated when asked for.

    `undamped` is Hermitian and not zero, and `shift` is added to its eigenvalues. Where that is 0 and the
    moment singular, `inverse` is the pseudo-inverse.
    """

    undamped: Float[Array, "n n"]
    shift: Float[Array, ""]

    @property
    def moment(self) -> Float[Array, "n n"]:
        """rootᴴ root."""
        m = self.undamped
        return m + self.shift * namespace(m).eye(m.shape[0], dtype=m.dtype, device=device_of(m))

    @cached_property
    def _eigen(self) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
        """Eigenvalues, 0 where they are rounding errors and not damped; and eigenvectors."""
        xp = namespace(self.undamped)
        values, vectors = xp.linalg.eigh(self.undamped)
        rounding = len(values) * epsilon(values) * xp.max(values)
        floor = xp.where(self.shift > 0, xp.zeros_like(rounding), rounding)
        return xp.where(values > floor, values, xp.zeros_like(values)) + self.shift, vectors

    @cached_property
    def root(self) -> Float[Array, "n n"]:
        """R with rootᴴ root = moment."""
        values, vectors = self._eigen
        return namespace(values).sqrt(values)[:, None] * adjoint(vectors)

    @cached_property
    def inverse(self) -> Float[Array, "n n"]:
        """The inverse of R."""
        values, vectors = self._eigen
        xp, there = namespace(values), values > 0
        inverted = 1 / xp.sqrt(xp.where(there, values, xp.ones_like(values)))
        return vectors * xp.where(there, inverted, xp.zeros_like(values))


def root_of(moment: Float[Array, "n n"], damping: float = 1e-4) -> Root:
    """The root of a moment to which `damping` times its mean eigenvalue is added.

    The damping bounds the condition: directions that the data never showed count little, but are not given
    up. Without it they are, but on the side of a low-rank matrix that is not inverted. A zero moment gives
    the identity.

    Raises:
        OptionError: unless damping >= 0.
        ShapeError: unless the moment is square.

    >>> import numpy as np
    >>> pair = root_of(np.diag([4.0, 1.0]), damping=1e-9)
    >>> np.allclose(pair.root.T @ pair.root, np.diag([4.0, 1.0]))
    True
    """
    if not damping >= 0:
        raise OptionError(f"damping came as {damping}.", "Give a small number, or 0.")
    if moment.ndim != 2 or moment.shape[0] != moment.shape[1]:
        raise ShapeError(f"a moment came with shape {tuple(moment.shape)}.", "Moments are square matrices.")
    moment = load(moment)
    xp, m = namespace(moment), to_compute(moment)
    m = (m + adjoint(m)) / 2
    mean = xp.linalg.trace(xp.real(m) if is_complex(m) else m) / m.shape[0]
    eye = xp.eye(m.shape[0], dtype=m.dtype, device=device_of(m))
    return Root(xp.where(mean > 0, m, eye), damping * xp.where(mean > 0, mean, xp.ones_like(mean)))


def whitened(tensor: Array, roots: Sequence[Root | None]) -> Array:
    """The tensor in coordinates in which the metric is the Euclidean one; modes without a root stay."""
    matrices = [None if r is None else cast_like(r.root, to_compute(tensor)) for r in roots]
    return multi_mode_dot(to_compute(tensor), matrices)


def shortened(matrix: Array, roots: Sequence[Root | None]) -> Array:
    """A matrix with the singular values that `matrix` has once whitened, by a root of its shorter side alone.

    Much cheaper where one side is far longer; accurate to `gram_accuracy`. Where the matrix has no more rows
    than columns, the left singular vectors are those of the whitened one too.

    >>> import numpy as np
    >>> roots = [None, root_of(np.diag([4.0, 1.0, 1.0]), damping=0.0)]
    >>> shortened(np.array([[3.0, 0.0, 8.0]]), roots), whitened(np.array([[3.0, 0.0, 8.0]]), roots).shape
    (array([[10.]]), (1, 3))
    """
    rows, columns = roots
    if matrix.shape[0] > matrix.shape[1]:
        return shortened(matrix.T, (columns, rows)).T
    seen = whitened(matrix, (rows, None))
    return seen if columns is None else output_root(seen, cast_like(columns.moment, seen))


def unwhitened(value: Format, roots: Sequence[Root | None]) -> Format:
    """The way back, factor by factor."""
    for k, r in enumerate(roots):
        if r is not None:
            value = value.mode_dot(cast_like(r.inverse, value.factors[0]), k)
    return value


def rewhitened(value: Format, roots: Sequence[Root | None]) -> Format:
    """A format in whitened coordinates, factor by factor: the inverse of `unwhitened`."""
    for k, r in enumerate(roots):
        if r is not None:
            value = value.mode_dot(cast_like(r.root, value.factors[0]), k)
    return value


def decompose_weighted(
    method: Method[Any],
    tensor: Array,
    ranks: Ranks | None,
    roots: Sequence[Root | None],
    *,
    generator: Any = None,
) -> Fit[Any]:
    """Fit `tensor` in the metric of the roots; the error is relative in that metric.

    Dask arrays, of moments as of tensors, are computed into memory.

    Low rank needs the inverse of one root at most, that of the shorter side where both have one; the other
    moment may be singular without damping. The norm of each of its components is spread evenly.

    >>> import numpy as np
    >>> from tenfold.decompose import TruncatedSVD
    >>> x = np.diag([2.0, 1.0])
    >>> seen = root_of(np.diag([1.0, 100.0]), damping=1e-9)  # the data lie along the second column
    >>> fit = decompose_weighted(TruncatedSVD(), x, 1, [None, seen])
    >>> np.round(np.abs(fit.value.dense()), 6)
    array([[0., 0.],
           [0., 1.]])
    """
    if is_chunked(tensor):
        fit = decompose_weighted(method, load(tensor), ranks, roots, generator=load_generator(generator))
        return replace(fit, value=fit.value.map(store))
    if method.format is LowRank and any(r is not None for r in roots):
        fit = _low_rank(method, tensor, ranks, roots, generator)
    else:
        fit = method.fit(whitened(tensor, roots), ranks, generator=generator)
        fit = replace(fit, value=unwhitened(fit.value, roots))
    return replace(fit, value=in_dtype_of(tensor, fit.value))


def _low_rank(
    method: Method[Any], matrix: Array, ranks: Ranks | None, roots: Sequence[Root | None], generator: Any
) -> Fit[LowRank]:
    """A⁻¹ U and Uᴴ A W with U the left directions of A W Sᵀ, for roots A of the rows and S of the columns.

    Only A is inverted. The matrix is transposed where that spares A, or makes it the smaller of the two.
    """
    rows, columns = roots
    if rows is not None and (columns is None or matrix.shape[0] > matrix.shape[1]):
        fit = _low_rank(method, matrix.T, ranks, (columns, rows), generator)
        return replace(fit, value=LowRank(fit.value.right.T, fit.value.left.T))
    ranks = ranks if ranks is None else LowRank.skeleton(tuple(matrix.shape), ranks).ranks
    seen = whitened(matrix, (rows, None))
    fit = _fit_of_outputs(method, seen, ranks, columns, generator)
    value = projected(seen, fit.value.left)
    left = value.left if rows is None else cast_like(rows.inverse, seen) @ value.left
    return replace(fit, value=evened(LowRank(left, value.right)))


def _fit_of_outputs(
    method: Method[Any], matrix: Array, ranks: Ranks | None, columns: Root | None, generator: Any
) -> Fit[LowRank]:
    """A fit with the left directions and the error of the best one in the metric of the columns."""
    if columns is not None and matrix.shape[0] <= matrix.shape[1]:
        fit = method.fit(shortened(matrix, (None, columns)), ranks, generator=generator)
        if settled(fit.error > gram_accuracy(matrix)):
            return fit
    return method.fit(whitened(matrix, (None, columns)), ranks, generator=generator)
