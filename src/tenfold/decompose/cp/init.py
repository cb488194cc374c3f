"""Where CP algorithms start."""

import math
from typing import Any

from tenfold.core.arrays import Array, constant, device_of, is_traced, namespace
from tenfold.core.errors import OptionError
from tenfold.core.leading import leading
from tenfold.core.noise import normal
from tenfold.core.pieces import mode_gram
from tenfold.decompose.cp.gevd import gevd


def at_random(tensor: Array, rank: int, generator: Any) -> list[Array]:
    """Normal factors."""
    return [normal((n, rank), like=tensor, generator=generator) for n in tensor.shape]


def from_hosvd(tensor: Array, rank: int, generator: Any) -> list[Array]:
    """Leading left singular vectors of the unfoldings, filled up with random columns beyond their number."""
    xp, factors = namespace(tensor), []
    for k, n in enumerate(tensor.shape):
        count = min(rank, n, math.prod(tensor.shape) // n)
        fill = normal((n, rank - count), like=tensor, generator=generator) / n**0.5
        factors.append(xp.concat([_directions(tensor, k, count), fill], axis=1))
    return factors


def _directions(tensor: Array, mode: int, count: int) -> Array:
    """Leading left singular vectors of an unfolding; all of them do not need to be accurate."""
    if count < tensor.shape[mode] or is_traced(tensor):
        return leading(tensor, mode, count)[0]
    _, vectors = namespace(tensor).linalg.eigh(mode_gram(constant(tensor), mode))
    return namespace(tensor).flip(vectors, axis=1)


def from_gevd(tensor: Array, rank: int, generator: Any) -> list[Array]:
    """By eigenvectors, exact where the rank is; as `from_hosvd` where there are none, see `gevd`."""
    found = gevd(tensor, rank, generator)
    return from_hosvd(tensor, rank, generator) if found is None else found


def from_slices(tensor: Array, rank: int, generator: Any) -> list[Array]:
    """The largest singular triplets of all slices over the two largest modes.

    Each triplet of slice X[:, :, c, d, ...] is a rank-one term whose other vectors are unit vectors, so with
    every triplet the sum is the tensor itself: a good start at the high ranks that kernels of convolutions
    are given. Random noise keeps the unit vectors from being a saddle point.
    """
    xp, shape = namespace(tensor), tensor.shape
    rows, columns = sorted(sorted(range(tensor.ndim), key=lambda k: shape[k])[-2:])
    others = [k for k in range(tensor.ndim) if k not in (rows, columns)]
    slices = xp.reshape(xp.permute_dims(tensor, (*others, rows, columns)), (-1, shape[rows], shape[columns]))
    u, s, vh = xp.linalg.svd(slices, full_matrices=False)
    per_slice = s.shape[1]
    best = xp.argsort(xp.reshape(s, (-1,)), descending=True, stable=True)[:rank]
    at = best // per_slice
    root = xp.sqrt(xp.take(xp.reshape(s, (-1,)), best))
    factors: dict[int, Array] = {
        rows: xp.take(xp.reshape(xp.matrix_transpose(u), (-1, shape[rows])), best, axis=0).T * root,
        columns: xp.take(xp.reshape(vh, (-1, shape[columns])), best, axis=0).T * root,
    }
    for k in reversed(others):
        noise = normal((shape[k], best.shape[0]), like=tensor, generator=generator) * (0.1 / shape[k] ** 0.5)
        units = xp.eye(shape[k], dtype=tensor.dtype, device=device_of(tensor))
        factors[k] = xp.take(units, at % shape[k], axis=1) + noise
        at = at // shape[k]
    return [_widened(factors[k], rank, tensor, generator) for k in range(tensor.ndim)]


def _widened(factor: Array, rank: int, tensor: Array, generator: Any) -> Array:
    """Random columns where there were fewer triplets than components."""
    short = rank - factor.shape[1]
    if short <= 0:
        return factor
    fill = normal((factor.shape[0], short), like=tensor, generator=generator)
    return namespace(tensor).concat([factor, fill / factor.shape[0] ** 0.5], axis=1)


def check_start(start: str) -> None:
    """Raise OptionError unless `start` is known."""
    if start not in STARTS:
        raise OptionError(f"start came as {start!r}.", f"Choose one of {', '.join(STARTS)}.")


STARTS = {"gevd": from_gevd, "hosvd": from_hosvd, "slices": from_slices, "random": at_random}
"""On kernels of convolutions "hosvd" had the lowest error after 10 sweeps; after 100 all agree to 2 %."""
