"""Roots of moments, some of them diagonal and held as vectors, and fits in the metric that they make.

A diagonal root scales a mode entry by entry, which commutes with the roots of the other modes. So a tensor is
scaled, fitted in the metric of the other roots, and its factors are scaled back: no matrix over a vocabulary
is ever made. The error of a low-rank matrix is a sum over the rows of its diagonal side, each of which is
best by itself once the other factor is known. Hence its rows need no scaling back, and one that the data
never showed is treated as well as the rank allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tenfold.decompose import Fit, Method, Root, decompose_weighted, root_of
from tenfold.decompose import weighted as matrices
from tenfold.decompose.output_pca import evened, projected
from tenfold.formats import Format, LowRank, Ranks


@dataclass(frozen=True, eq=False)
class DiagonalRoot:
    """The root of a diagonal moment, damped as by `root_of`: all of it vectors.

    >>> root = DiagonalRoot(torch.tensor([4.0, 1.0, 0.0]))
    >>> root.root, root.inverse
    (tensor([2., 1., 0.]), tensor([0.5000, 1.0000, 0.0000]))
    """

    moment: Float[Tensor, " n"]

    @cached_property
    def root(self) -> Float[Tensor, " n"]:
        """Square roots."""
        return self.moment.sqrt()

    @cached_property
    def inverse(self) -> Float[Tensor, " n"]:
        """Their inverses; 0 where the moment is 0."""
        return torch.where(self.moment > 0, self.root, torch.inf).reciprocal()


ModeRoot = Root | DiagonalRoot | None
"""The root of a mode; None where all directions count the same."""


def mode_root(moment: Tensor | None, damping: float) -> ModeRoot:
    """The root of a moment, a vector being the diagonal of one; to it `damping` times its mean is added.

    A zero moment gives the identity.

    >>> mode_root(torch.tensor([2.0, 0.0]), 0.5).moment
    tensor([2.5000, 0.5000])
    """
    if moment is None or moment.ndim != 1:
        return None if moment is None else root_of(moment, damping)
    m = moment.to(torch.promote_types(moment.dtype, torch.float32)).clamp_min(0)
    m = torch.where(m.mean() > 0, m, torch.ones_like(m))
    return DiagonalRoot(m + damping * m.mean())


def whitened(tensor: Tensor, roots: Sequence[ModeRoot]) -> Tensor:
    """The tensor in coordinates in which the metric is the Euclidean one."""
    found: Tensor = matrices.whitened(_scaled(tensor, roots), _full(roots))
    return found


def shortened(matrix: Tensor, roots: Sequence[ModeRoot]) -> Tensor:
    """A matrix with the singular values that `matrix` has once whitened, by the root of its shorter side."""
    found: Tensor = matrices.shortened(_scaled(matrix, roots), _full(roots))
    return found


def unwhitened(value: Format, roots: Sequence[ModeRoot]) -> Format:
    """The way back, factor by factor."""
    for k, root in enumerate(roots):
        if isinstance(root, DiagonalRoot):
            value = with_scaled_mode(value, root.inverse, k)
    return matrices.unwhitened(value, _full(roots))


def rewhitened(value: Format, roots: Sequence[ModeRoot]) -> Format:
    """A format in whitened coordinates, factor by factor: the inverse of `unwhitened`."""
    for k, root in enumerate(roots):
        if isinstance(root, DiagonalRoot):
            value = with_scaled_mode(value, root.root, k)
    return matrices.rewhitened(value, _full(roots))


def fitted_in(
    method: Method[Any], tensor: Tensor, ranks: Ranks | None, roots: Sequence[ModeRoot], generator: Any = None
) -> Fit[Any]:
    """Fit `tensor` in the metric of the roots; the error is relative in that metric.

    >>> from tenfold.decompose import TruncatedSVD
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    >>> often = DiagonalRoot(torch.tensor([1.0, 9.0, 0.0]))
    >>> fitted_in(TruncatedSVD(), x, 1, [often, None]).value.dense().abs()
    tensor([[0., 0.],
            [0., 1.],
            [0., 3.]])
    """
    scales = [k for k, root in enumerate(roots) if isinstance(root, DiagonalRoot)]
    fit: Fit[Any] = decompose_weighted(
        method, _scaled(tensor, roots), ranks, _full(roots), generator=generator
    )
    if method.format is LowRank and len(scales) == 1:
        value: Format = _best_rows(tensor, fit.value, roots, scales[0])
    else:
        value = fit.value
        for k in scales:
            value = with_scaled_mode(value, roots[k].inverse, k)  # type: ignore[union-attr]
    return replace(fit, value=value.map(lambda f: f.to(tensor.dtype)))


def _best_rows(matrix: Tensor, value: LowRank, roots: Sequence[ModeRoot], side: int) -> LowRank:
    """The matrix with the factor of the other side as in `value`, and that of this side the best for it."""
    if side == 1:
        turned = _best_rows(matrix.T, LowRank(value.right.T, value.left.T), roots[::-1], 0)
        return LowRank(turned.right.T, turned.left.T)
    other = roots[1]
    assert not isinstance(other, DiagonalRoot)
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    seen = matrices.whitened(wide, (None, other))
    directions = matrices.whitened(value.right.to(wide), (None, other))
    best = projected(seen.T, directions.T)
    right = best.left if other is None else other.inverse.to(wide) @ best.left
    return evened(LowRank(best.right.T, right.T))


def with_scaled_mode(value: Format, scale: Float[Tensor, " n"], k: int) -> Format:
    """A format with the entries of its mode k multiplied by numbers, in the first factor that carries it.

    >>> with_scaled_mode(LowRank(torch.ones(2, 1), torch.ones(1, 2)), torch.tensor([1.0, 3.0]), 0).dense()
    tensor([[1., 1.],
            [3., 3.]])
    """
    mode = value.network.modes[k]
    at = next(n for n, axes in enumerate(value.network.factors) if mode in axes)
    axis, factors = value.network.factors[at].index(mode), list(value.factors)
    factors[at] = factors[at] * _along(scale, axis, factors[at])
    feed = iter(factors)
    return value.map(lambda _: next(feed))


def _scaled(tensor: Tensor, roots: Sequence[ModeRoot]) -> Tensor:
    """In float32 at least, if there is anything to scale."""
    for k, root in enumerate(roots):
        if isinstance(root, DiagonalRoot):
            wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
            tensor = wide * _along(root.root, k, wide)
    return tensor


def _along(scale: Tensor, axis: int, like: Tensor) -> Tensor:
    """A vector that is broadcast over all axes but one."""
    return scale.to(like).reshape(-1, *[1] * (like.ndim - 1 - axis))


def _full(roots: Sequence[ModeRoot]) -> list[Root | None]:
    """The roots that are matrices."""
    return [None if isinstance(root, DiagonalRoot) else root for root in roots]
