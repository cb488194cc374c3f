"""A tensor that is a function of its indices: counted, checked, and evaluated in parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from jaxtyping import Float, Int

from tenfold.core.arrays import (
    Array,
    cast,
    check_finite,
    compute_dtype,
    device_of,
    integer_dtype,
    is_complex,
    namespace,
    real_dtype,
    to_compute,
)
from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.noise import normal

AT_ONCE = 2**18
"""Largest number of entries that a function is asked for in one call."""

Function = Callable[[Int[Array, "n order"]], Float[Array, " n"]]


class SpentError(Exception):
    """The entries asked for are more than were allowed; never leaves this package."""


@dataclass
class BlackBox:
    """The function of a tensor of some shape, whose values come in the library and dtype of `like`.

    `flipped` reads the modes from the last to the first. `count` is the number of evaluations so far.
    """

    function: Function
    shape: tuple[int, ...]
    like: Array
    most: int
    flipped: bool = False
    count: int = field(default=0, init=False)

    def __call__(self, indices: Int[Array, "n order"]) -> Float[Array, " n"]:
        """The values at some indices; raises SpentError instead of evaluating too often."""
        xp, n = namespace(indices), int(indices.shape[0])
        if self.count + n > self.most:
            raise SpentError
        self.count += n
        indices = xp.flip(indices, axis=1) if self.flipped else indices
        parts = [self._values(indices[at : at + AT_ONCE, :]) for at in range(0, n, AT_ONCE)]
        return parts[0] if len(parts) == 1 else xp.concat(parts)

    def _values(self, indices: Int[Array, "n order"]) -> Float[Array, " n"]:
        values = self.function(indices)
        if tuple(values.shape) != (indices.shape[0],):
            raise ShapeError(
                f"the function was asked for {indices.shape[0]} entries, but gave an array of shape "
                f"{tuple(values.shape)}.",
                "It takes indices of shape (n, order) and gives n values.",
            )
        check_finite(values, "the function")
        if is_complex(values) and not is_complex(self.like):
            raise OptionError("the function is complex, but `like` is real.", "Give a complex `like`.")
        return cast(to_compute(values), compute_dtype(self.like))

    def block(self, rows: Int[Array, "m k"], columns: Int[Array, "n l"]) -> Float[Array, "m n"]:
        """The matrix of the values at every row index followed by every column index."""
        values = self(products(rows, columns))
        return namespace(values).reshape(values, (rows.shape[0], columns.shape[0]))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the modes in the order in which they are read."""
        return self.shape[::-1] if self.flipped else self.shape

    def mode(self, k: int) -> Int[Array, "i 1"]:
        """All indices of a mode."""
        xp = namespace(self.like)
        return xp.arange(self.sizes[k], dtype=integer_dtype(self.like), device=device_of(self.like))[:, None]


def random_indices(shape: Sequence[int], count: int, *, like: Array, generator: Any) -> Int[Array, "n order"]:
    """Independent uniform indices: the angle of a pair of normal numbers is uniform."""
    xp = namespace(like)
    real = to_compute(xp.zeros((), dtype=real_dtype(like), device=device_of(like)))
    pair = normal((2, count, len(shape)), like=real, generator=generator)
    uniform = xp.atan2(pair[0, ...], pair[1, ...]) / 6.283185307179586 + 0.5
    sizes = xp.asarray(shape, dtype=uniform.dtype, device=device_of(like))
    integer = integer_dtype(like)
    drawn = xp.astype(xp.floor(uniform * sizes), integer)
    return xp.minimum(drawn, xp.asarray(shape, dtype=integer, device=device_of(like)) - 1)


def products(rows: Int[Array, "m k"], columns: Int[Array, "n l"]) -> Int[Array, "mn k+l"]:
    """Every row index followed by every column index."""
    xp, (m, k), (n, tail) = namespace(rows), rows.shape, columns.shape
    left = xp.broadcast_to(rows[:, None, :], (m, n, k))
    right = xp.broadcast_to(columns[None, :, :], (m, n, tail))
    return xp.reshape(xp.concat([left, right], axis=2), (m * n, k + tail))


def entries_of(tensor: Array) -> Function:
    """The function that a dense tensor is, to try what takes functions.

    >>> import numpy as np
    >>> entries_of(np.arange(6).reshape(2, 3))(np.array([[1, 0], [1, 2]]))
    array([3, 5])
    """
    xp, shape = namespace(tensor), tuple(tensor.shape)
    flat = xp.reshape(tensor, (prod(shape),))

    def entries(indices: Int[Array, "n order"]) -> Float[Array, " n"]:
        position = indices[:, 0]
        for k in range(1, len(shape)):
            position = position * shape[k] + indices[:, k]
        return xp.take(flat, position, axis=0)

    return entries
