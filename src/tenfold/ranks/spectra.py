"""Singular values that tell what ranks cost: of unfoldings, and of slices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array, is_torch_array, to_device
from jaxtyping import Float

from tenfold.core.arrays import Array, adjoint, epsilon, is_complex, namespace, to_compute

Spectrum = Float[np.ndarray, " k"]
"""Singular values in float64 on the CPU, the largest first."""


def unfolding_spectrum(tensor: Float[Array, "..."], rows: Sequence[int]) -> Spectrum:
    """Singular values of the unfolding whose rows are these modes.

    >>> unfolding_spectrum(np.diag([1.0, 2.0]), (0,))
    array([2., 1.])
    """
    return spectra_of_slices(tensor, (), rows)[0]


def spectra_of_slices(
    tensor: Float[Array, "..."], slices: Sequence[int], rows: Sequence[int]
) -> Float[np.ndarray, "slices k"]:
    """Singular values of every matrix whose rows are the modes `rows`, one for each index of `slices`.

    >>> x = np.stack([np.diag([1.0, 2.0]), np.diag([4.0, 3.0])], axis=1)
    >>> spectra_of_slices(x, (1,), (0,))
    array([[2., 1.],
           [4., 3.]])
    """
    stack = _stacked(to_compute(tensor), slices, rows)
    if epsilon(stack) > 1e-8 and _has_float64(stack):
        return _by_gram(stack)
    return np.asarray(to_host(namespace(stack).linalg.svdvals(stack)))


def _has_float64(stack: Array) -> bool:
    """Whether the array's library and device are known to calculate in float64."""
    return stack.device.type != "mps" if is_torch_array(stack) else is_numpy_array(stack)


def _by_gram(stack: Float[Array, "slices m n"]) -> Float[np.ndarray, "slices k"]:
    """Singular values from the shorter Gram matrix in float64.

    That is off by 1e-8 of the largest one, less than the SVD in float32, and several times faster.
    """
    xp = namespace(stack)
    wide = xp.astype(stack, xp.complex128 if is_complex(stack) else xp.float64)
    other = xp.conj(xp.matrix_transpose(wide))
    gram = wide @ other if wide.shape[-2] <= wide.shape[-1] else other @ wide
    squares = np.asarray(to_host(xp.linalg.eigvalsh(gram)))
    return np.sqrt(np.maximum(squares[..., ::-1], 0.0))


def spectral_norm(tensor: Float[Array, "..."], rows: Sequence[int]) -> float:
    """The largest singular value of the unfolding whose rows are these modes, from the smaller Gram matrix.

    >>> spectral_norm(np.stack([np.diag([3.0, 2.0]), np.diag([4.0, 2.0])], axis=1), (0,))
    5.0
    """
    matrix = _stacked(to_compute(tensor), (), rows)[0, ...]
    gram = matrix @ adjoint(matrix) if matrix.shape[0] <= matrix.shape[1] else adjoint(matrix) @ matrix
    return float(max(0.0, to_host(namespace(gram).linalg.eigvalsh(gram))[-1])) ** 0.5


def _stacked(
    tensor: Float[Array, "..."], slices: Sequence[int], rows: Sequence[int]
) -> Float[Array, "slices m n"]:
    columns = tuple(k for k in range(tensor.ndim) if k not in (*slices, *rows))
    shape = [math.prod(tensor.shape[k] for k in axes) for axes in (slices, rows, columns)]
    xp = namespace(tensor)
    return xp.reshape(xp.permute_dims(tensor, (*slices, *rows, *columns)), tuple(shape))


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
