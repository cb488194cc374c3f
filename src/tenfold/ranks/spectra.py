"""Singular values that tell what ranks cost: of unfoldings, and of slices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import is_torch_array, to_device
from jaxtyping import Float

from tenfold.core.arrays import Array, adjoint, namespace, to_compute

Spectrum = Float[np.ndarray, " k"]
"""Singular values in float64 on the CPU, the largest first."""


def unfolding_spectrum(tensor: Float[Array, "..."], rows: Sequence[int]) -> Spectrum:
    """Singular values of the unfolding whose rows are these modes.

    >>> unfolding_spectrum(np.diag([1.0, 2.0]), (0,))
    array([2., 1.])
    """
    values = to_compute(tensor)
    xp = namespace(values)
    columns = tuple(k for k in range(values.ndim) if k not in rows)
    height = math.prod(values.shape[k] for k in rows)
    return to_host(xp.linalg.svdvals(xp.reshape(xp.permute_dims(values, (*rows, *columns)), (height, -1))))


def slice_spectrum(tensor: Float[Array, "..."]) -> Spectrum:
    """Singular values of all slices over the two largest modes, once the small modes are in their own bases.

    A slice is a sum of rank-one matrices, and a rank-one matrix in one slice is a rank-one tensor. All these
    tensors are orthogonal, so the R largest make a CP decomposition of rank R whose squared error is the sum
    of the squares of the others: an upper bound of the best. The bases of the singular vectors gather the
    energy in few slices, which tightens it.

    >>> x = np.multiply.outer(np.diag([3.0, 2.0, 1.0]), [0.6, 0.8])
    >>> slice_spectrum(x).round(6)
    array([3., 2., 1., 0., 0., 0.])
    """
    values = to_compute(tensor)
    xp = namespace(values)
    order = sorted(range(values.ndim), key=lambda k: values.shape[k])
    for k in order[:-2]:
        values = xp.moveaxis(xp.tensordot(adjoint(_basis(values, k)), values, axes=((1,), (k,))), 0, k)
    found = to_host(xp.linalg.svdvals(xp.permute_dims(values, tuple(order))))
    return np.sort(found.ravel())[::-1]


def _basis(tensor: Float[Array, "..."], k: int) -> Float[Array, "n n"]:
    """The left singular vectors of the unfolding of mode k."""
    xp = namespace(tensor)
    rows = xp.reshape(xp.moveaxis(tensor, k, 0), (tensor.shape[k], -1))
    return xp.linalg.eigh(rows @ adjoint(rows))[1]


def to_host(values: Array) -> Any:
    """A NumPy array in float64."""
    array = values.detach() if is_torch_array(values) else values
    return np.asarray(to_device(array, "cpu"), dtype=np.float64)


def tails(spectrum: Spectrum) -> Float[np.ndarray, " k+1"]:
    """The energy that every rank from 0 to k leaves.

    >>> tails(np.array([2.0, 1.0]))
    array([5., 1., 0.])
    """
    return np.append(np.cumsum(spectrum[::-1] ** 2)[::-1], 0.0)
