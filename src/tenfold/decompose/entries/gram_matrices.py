"""JᴴJ of a problem at listed entries as matrices: all of it for few unknowns, a block for every row for many.

With the environment E_f of a factor, the entries n that select its row r make the block

    Σ_n conj(E_f[n, :])ᵀ E_f[n, :] over the entries with row n = r

of JᴴJ, and the columns of J for that row are those of E_f at these entries, zero at all others.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from math import prod

from jaxtyping import Int, Num

from tenfold.core.arrays import Array, adjoint, conjugate, device_of, epsilon, is_complex, namespace
from tenfold.core.linalg import solve_psd
from tenfold.core.segments import Pair, Segments
from tenfold.decompose.local_problem import Point

EXPLICIT = 200
"""Up to so many unknowns, steps are solved for directly."""

BLOCKS = 2**25
"""Up to so many numbers of diagonal blocks are made for the preconditioner; beyond, only their diagonals."""


def is_small(unknowns: int, entries: int) -> bool:
    """Whether there are at most `EXPLICIT` unknowns, and J has room as a matrix.

    >>> is_small(200, 1000), is_small(201, 1000)
    (True, False)
    """
    return unknowns <= EXPLICIT and entries <= BLOCKS // EXPLICIT


def jacobian_columns(
    matrix: Num[Array, "rows d"], labels: Int[Array, " n"], environment: Num[Array, "n d"]
) -> Num[Array, "n unknowns"]:
    """J for the entries of one factor, of which entry n selects the row `labels[n]`."""
    xp = namespace(matrix)
    eye = xp.eye(matrix.shape[0], dtype=matrix.dtype, device=device_of(matrix))
    chosen = xp.take(eye, labels, axis=0)
    return xp.reshape(chosen[:, :, None] * environment[:, None, :], (chosen.shape[0], -1))


class WholeGram:
    """JᴴJ of all factors as one matrix, from the columns of J for each."""

    def __init__(self, columns: Sequence[Num[Array, "n _"]]) -> None:
        self.xp = namespace(*columns)
        self.jacobian = self.xp.concat(list(columns), axis=1)

    @cached_property
    def matrix(self) -> Num[Array, "unknowns unknowns"]:
        """JᴴJ."""
        return adjoint(self.jacobian) @ self.jacobian

    def solve(self, target: Point, shift: float) -> Point:
        """(JᴴJ + shift I)⁺ target."""
        xp, jacobian = self.xp, self.jacobian
        eye = xp.eye(jacobian.shape[1], dtype=jacobian.dtype, device=device_of(jacobian))
        whole = xp.concat([xp.reshape(t, (-1,)) for t in target])
        solution = solve_psd(self.matrix + shift * eye, whole)
        ends = accumulate(prod(t.shape) for t in target)
        return tuple(
            xp.reshape(solution[end - prod(t.shape) : end], t.shape)
            for t, end in zip(target, ends, strict=True)
        )


class RowBlocks:
    """The diagonal blocks of JᴴJ for one factor, one for every row; or diagonals, if blocks are too large."""

    def __init__(self, environment: Num[Array, "n d"], segments: Segments, rows: int) -> None:
        self.environment, self.segments, self.rows = environment, segments, rows
        self.xp = namespace(environment)
        self._inverses: dict[float, Array] = {}

    def solve(self, residual: Num[Array, "rows d"], shift: float) -> Num[Array, "rows d"]:
        """The inverse of every block + shift I, times its row of the residual."""
        if shift not in self._inverses:
            self._inverses[shift] = self._inverse(shift)
        inverse = self._inverses[shift]
        if inverse.ndim == 2:
            return inverse * residual
        return (inverse @ residual[:, :, None])[:, :, 0]

    def _inverse(self, shift: float) -> Array:
        xp, block = self.xp, self.blocks
        if block.ndim == 2:
            return 1.0 / (block + (shift + _floor(block)))
        diagonal = xp.linalg.diagonal(block)
        eye = xp.eye(block.shape[-1], dtype=block.dtype, device=device_of(block))
        tiny = _floor(xp.real(diagonal) if is_complex(diagonal) else diagonal)
        return xp.linalg.inv(block + (shift + tiny) * eye)

    @cached_property
    def blocks(self) -> Array:
        """A matrix for every row, or a row of diagonal entries."""
        large = self.rows * self.environment.shape[1] ** 2 > BLOCKS
        return self.diagonals() if large else self.gram_blocks()

    def gram_blocks(self) -> Num[Array, "rows d d"]:
        """The blocks as matrices."""
        environment, xp = self.environment, self.xp

        def rows(at: Int[Array, " k"]) -> Pair:
            chosen = xp.take(environment, at, axis=0)
            return conjugate(chosen), chosen

        return self.segments.products(rows, environment.shape[1])

    def diagonals(self) -> Num[Array, "rows d"]:
        """Their diagonals alone."""
        return self.segments.sum(self.xp.abs(self.environment) ** 2)


def _floor(diagonal: Array) -> float:
    """What to add so that no block is singular: a trifle of the largest entry."""
    xp = namespace(diagonal)
    return 100 * epsilon(diagonal) * float(xp.max(diagonal)) + 1e-300
