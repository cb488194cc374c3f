"""Single entries of a tensor that is held as factors."""

import math
from functools import lru_cache
from typing import Any

from array_api_compat import to_device
from jaxtyping import Int, Num

from tenfold.core.arrays import Array, device_of, is_traced, namespace
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes, Axis, Network
from tenfold.formats.contracting import contracted

BATCH: Axis = "N"
"""The axis of the entries; formats number their bonds, so that none is called so."""


def entries(
    network: Network, factors: tuple[Num[Array, "..."], ...], indices: Int[Array, "n order"]
) -> Num[Array, " n"]:
    """The entries at `indices` of the tensor that a network and its factors stand for.

    Every factor gives the rows of its own modes, and the network over these rows is contracted as a batch, in
    an order that is planned once for each number of entries. The memory is n times what one entry takes, so
    millions of entries of tensors with large ranks are better asked for in parts. Differentiable, and pure:
    the indices are not checked, and must be from 0 up to the sizes of the modes.

    >>> import numpy as np
    >>> from tenfold.formats import CP
    >>> x = CP.random((4, 5, 6), 2, like=np.zeros(()), generator=0)
    >>> bool(np.allclose(entries(x.network, x.factors, np.array([[1, 2, 3]])), x.dense()[1, 2, 3]))
    True
    """
    xp = namespace(*factors)
    rows = tuple(
        _rows(f, axes, network, indices, xp) for f, axes in zip(factors, network.factors, strict=True)
    )
    return contracted(_batch(network, int(indices.shape[0])), rows, (BATCH,))


def _rows(factor: Array, axes: Axes, network: Network, indices: Array, xp: Any) -> Array:
    """The factor over the batch and its bonds: the row that every entry needs."""
    modes = [a for a in axes if a in network.modes]
    if not modes:
        return factor
    bonds = [a for a in axes if a not in modes]
    order = tuple(axes.index(a) for a in (*modes, *bonds))
    rows, rest = (network.extent(tuple(a)) for a in (modes, bonds))
    flat = xp.reshape(xp.permute_dims(factor, order), (math.prod(rows), *rest))
    position = indices[:, network.modes.index(modes[0])]
    for m in modes[1:]:
        position = position * network.size_of[m] + indices[:, network.modes.index(m)]
    return xp.take(flat, position, axis=0)


@lru_cache(maxsize=1024)
def _batch(network: Network, count: int) -> Network:
    """The network of the rows of `count` entries."""
    factors = tuple(_batched(f, network) for f in network.factors)
    return Network(factors, (BATCH,), ((BATCH, count), *network.ranks.items()))


def _batched(axes: Axes, network: Network) -> Axes:
    bonds = tuple(a for a in axes if a not in network.modes)
    return bonds if bonds == axes else (BATCH, *bonds)


def checked_indices(indices: Any, shape: tuple[int, ...], like: Array) -> Int[Array, "n order"]:
    """Indices of entries as an array in the library of `like`, negative ones counted from the end.

    Raises:
        ShapeError: unless they are whole numbers of shape (n, order) within the shape of the tensor.
    """
    xp = namespace(like)
    array = xp.asarray(indices)
    if array.ndim != 2 or array.shape[1] != len(shape) or not xp.isdtype(array.dtype, "integral"):
        raise ShapeError(
            f"indices came with shape {tuple(array.shape)} and dtype {array.dtype}, for a tensor of order "
            f"{len(shape)}.",
            f"Give whole numbers of shape (number of entries, {len(shape)}).",
        )
    array = xp.astype(array, xp.asarray(0).dtype)
    if (place := device_of(like)) is not None and not is_traced(like, array):
        array = to_device(array, place)
    columns = [xp.where(array[:, k] < 0, array[:, k] + n, array[:, k]) for k, n in enumerate(shape)]
    if not is_traced(array):
        outside = [bool(xp.any((c < 0) | (c >= n))) for c, n in zip(columns, shape, strict=True)]
        if any(outside):
            raise ShapeError(
                f"some indices lie outside of mode {outside.index(True)} of a tensor of shape {shape}.",
                "Count from 0, or from -1 backwards.",
            )
    return xp.stack(columns, axis=1)
