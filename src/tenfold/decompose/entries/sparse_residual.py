"""The error of a fit to a sparse tensor, of which most entries are zero and none is made dense at will."""

from math import prod, sqrt

from tenfold.core.arrays import Array, constant, device_of, epsilon, namespace
from tenfold.core.pieces import frobenius, slabs, together
from tenfold.core.sparse import Sparse
from tenfold.formats import Format

TRUSTED = 1e2
"""Times sqrt(eps): relative squares above that are read off ‖M‖² - ‖M at the entries‖²."""

DENSE = 2**27
"""Up to so many entries, the model is made dense in slabs where the difference of squares would cancel."""

BATCH = 2**18
"""Entries of the model that are evaluated at a time."""


def sparse_residual(tensor: Sparse, value: Format) -> float:
    """‖tensor - value‖: over the entries that are listed, plus what the model has where the tensor is zero.

    The second part is ‖M‖² - Σ |M|² over the listed entries. Where the error is small this cancels, and below
    about 1e-7 of the norm (1e-3 in float32) it is rounding; tensors of up to 2²⁷ entries are then gone
    through slab by slab, and for larger ones the result says no more than that the error is below that.

    >>> import numpy as np
    >>> from tenfold.formats import CP
    >>> corner = CP((np.eye(2, 1), 3 * np.eye(2, 1)))
    >>> sparse_residual(Sparse(np.array([[0, 0], [1, 1]]), np.array([3.0, 4.0]), (2, 2)), corner)
    4.0
    """
    tensor, value = tensor.coalesced.map(constant), value.map(constant)
    whole = frobenius(tensor.values)
    listed = tensor_values(value, tensor)
    near = frobenius(listed - tensor.values)
    model, there = float(value.norm()), frobenius(listed)
    far = max(0.0, (model - there) * (model + there))
    scale = max(whole, model) ** 2
    if near**2 + far > TRUSTED * sqrt(epsilon(tensor.values)) * scale or prod(tensor.shape) > DENSE:
        return sqrt(near**2 + far)
    zeros = (_beside(tensor, value, where) for where in slabs(tensor.shape))
    return together(near, *zeros)


def tensor_values(value: Format, tensor: Sparse) -> Array:
    """The model at the entries that are listed."""
    if tensor.nnz == 0:
        return tensor.values
    parts = [value.at(tensor.indices[start : start + BATCH]) for start in range(0, tensor.nnz, BATCH)]
    return namespace(*parts).concat(parts)


def sparse_inner(tensor: Sparse, value: Format) -> Array:
    """⟨tensor, value⟩, conjugating the tensor.

    >>> import numpy as np
    >>> from tenfold.formats import CP
    >>> ones = CP((np.ones((2, 1)), np.ones((2, 1))))
    >>> float(sparse_inner(Sparse(np.array([[0, 0], [1, 1]]), np.array([3.0, 4.0]), (2, 2)), ones))
    7.0
    """
    xp = namespace(tensor.values)
    conjugated = xp.conj(tensor.values) if xp.isdtype(tensor.dtype, "complex floating") else tensor.values
    return xp.sum(conjugated * tensor_values(value, tensor))


def _beside(tensor: Sparse, value: Format, where: tuple[slice, ...]) -> float:
    """The norm of the model in a slab, but for the entries that are listed."""
    xp = namespace(tensor.values)
    inside = tensor.values == tensor.values
    for column, part, size in zip(tensor.columns, where, tensor.shape, strict=False):
        start, stop, _ = part.indices(size)
        inside = inside & (column >= start) & (column < stop)
    chosen = xp.nonzero(inside)[0]
    starts = [part.indices(n)[0] for part, n in zip(where, tensor.shape, strict=False)]
    offset = xp.asarray(
        [*starts, *[0] * (tensor.ndim - len(starts))],
        dtype=tensor.indices.dtype,
        device=device_of(tensor.indices),
    )
    slab = value[where].dense()
    here = Sparse(
        xp.take(tensor.indices, chosen, axis=0) - offset,
        xp.ones_like(xp.take(tensor.values, chosen)),
        tuple(slab.shape),
    )
    return frobenius(slab * (1 - here.dense()))
