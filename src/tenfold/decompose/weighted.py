"""Decompositions in the inner product that data give a weight, for every format by one mechanism.

With a positive semidefinite moment M_k for each mode, the squared norm of a tensor E is

    ⟨E, E ×₀ M₀ ×₁ M₁ …⟩ = ‖E ×₀ R₀ ×₁ R₁ …‖²,     R_kᴴ R_k = M_k,

so a tensor is whitened by the roots R_k, decomposed, and its factors are un-whitened by their inverses:
multilinear formats are closed under products with matrices. For low rank this is the exact optimum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float

from tenfold.algebra import multi_mode_dot
from tenfold.core.arrays import Array, adjoint, cast_like, namespace, to_compute
from tenfold.core.errors import OptionError, ShapeError
from tenfold.decompose.base import Fit, Method
from tenfold.formats import Format, Ranks


@dataclass(frozen=True)
class Root:
    """A square root of a moment, rootᴴ root = moment, and its inverse."""

    root: Array
    inverse: Array


def root_of(moment: Float[Array, "n n"], damping: float = 1e-4) -> Root:
    """The root of a moment to which `damping` times its mean eigenvalue is added.

    The damping bounds the condition: directions that the data never showed count little, but are not given
    up. Computed in the eigenbasis; a zero moment gives the identity.

    Raises:
        OptionError: unless damping > 0.
        ShapeError: unless the moment is square.

    >>> import numpy as np
    >>> pair = root_of(np.diag([4.0, 1.0]), damping=1e-9)
    >>> np.allclose(pair.root.T @ pair.root, np.diag([4.0, 1.0]))
    True
    """
    if damping <= 0:
        raise OptionError(f"damping came as {damping}.", "Give a small number above 0.")
    if moment.ndim != 2 or moment.shape[0] != moment.shape[1]:
        raise ShapeError(f"a moment came with shape {tuple(moment.shape)}.", "Moments are square matrices.")
    xp, m = namespace(moment), to_compute(moment)
    values, vectors = xp.linalg.eigh((m + adjoint(m)) / 2)
    values = xp.clip(values, min=0.0)
    mean = xp.mean(values)
    scale = xp.where(mean > 0, mean, xp.ones_like(mean))
    roots = xp.sqrt(xp.where(mean > 0, values, xp.ones_like(values)) + damping * scale)
    return Root(roots[:, None] * adjoint(vectors), vectors / roots)


def whitened(tensor: Array, roots: Sequence[Root | None]) -> Array:
    """The tensor in coordinates in which the metric is the Euclidean one; modes without a root stay."""
    matrices = [None if r is None else cast_like(r.root, to_compute(tensor)) for r in roots]
    return multi_mode_dot(to_compute(tensor), matrices)


def unwhitened(value: Format, roots: Sequence[Root | None]) -> Format:
    """The way back, factor by factor."""
    for k, r in enumerate(roots):
        if r is not None:
            value = value.mode_dot(cast_like(r.inverse, value.factors[0]), k)
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

    >>> import numpy as np
    >>> from tenfold.decompose import TruncatedSVD
    >>> x = np.diag([2.0, 1.0])
    >>> seen = root_of(np.diag([1.0, 100.0]), damping=1e-9)  # the data lie along the second column
    >>> fit = decompose_weighted(TruncatedSVD(), x, 1, [None, seen])
    >>> np.round(np.abs(fit.value.dense()), 6)
    array([[0., 0.],
           [0., 1.]])
    """
    fit = method(whitened(tensor, roots), ranks, generator=generator)
    value = unwhitened(fit.value, roots).map(lambda f: cast_like(f, tensor))
    return Fit(value, fit.error, fit.steps, fit.converged, fit.trace)
