"""A format at the entries that are listed, and its least-squares problem there, for any network.

The value at the entry i, j, … is multilinear in the rows that its indices select from the factors:

    M[i, j, …] = Σ_b E_f[n, b] z_f[row of f, b]        for every factor f

where the environment E_f contracts the rows of all other factors over their bonds, and n numbers the entries.
Hence the Jacobian is J x = Σ_f Σ_b E_f x_f[rows], and its adjoint adds conj(E_f) y up over the entries of
every row. For CP, E_f is the product of the other rows.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod

from jaxtyping import Int, Num

from tenfold.core.arrays import Array, adjoint, device_of, epsilon, is_complex, namespace
from tenfold.core.contraction import lower_contraction
from tenfold.core.linalg import solve_psd
from tenfold.core.network import Axes, Network
from tenfold.core.program import run
from tenfold.core.segments import Pair, Segments
from tenfold.core.sparse import Entries
from tenfold.decompose.gauss_newton import Local, Point, dot, size
from tenfold.decompose.networks.environments import Environments, Target

ENTRY = "n"
"""The axis that numbers the entries."""

BLOCKS = 2**25
"""Up to so many numbers of diagonal blocks are made for the preconditioner; beyond, only their diagonals."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Half the squared distance of a network from a list of entries, and half of `ridge` times ‖z‖²."""

    entries: Entries
    network: Network
    ridge: float = 0.0

    def __call__(self, point: Point) -> "Observed":
        """The problem at a point: a matrix for each factor, with a row for each combination of its modes."""
        return Observed(self, point)

    @property
    def share(self) -> float:
        """Unknowns for each entry, at most 1."""
        return min(1.0, self.network.numel / self.entries.nnz)

    def with_ridge(self, ridge: float) -> "Problem":
        """The same problem with another ridge; what was planned is kept."""
        changed = copy.copy(self)
        object.__setattr__(changed, "ridge", ridge)
        return changed

    def flat(self, factors: Sequence[Array]) -> Point:
        """Factors as matrices of rows."""
        return tuple(
            _flat(f, *self._parted(axes)) for f, axes in zip(factors, self.network.factors, strict=True)
        )

    def folded(self, point: Point) -> tuple[Array, ...]:
        """The way back."""
        return tuple(self._folded(z, axes) for z, axes in zip(point, self.network.factors, strict=True))

    def _folded(self, matrix: Array, axes: Axes) -> Array:
        modes, bonds = self._split(axes)
        xp, order = namespace(matrix), (*modes, *bonds)
        tensor = xp.reshape(matrix, self.network.extent(order))
        return xp.permute_dims(tensor, tuple(order.index(a) for a in axes))

    def _split(self, axes: Axes) -> tuple[Axes, Axes]:
        return tuple(a for a in axes if a in self.network.modes), self.bonds_of(axes)

    def _parted(self, axes: Axes) -> tuple[tuple[int, ...], int]:
        modes, bonds = self._split(axes)
        return tuple(axes.index(a) for a in (*modes, *bonds)), self.network.product(modes)

    def bonds_of(self, axes: Axes) -> Axes:
        """The axes of a factor that are no modes."""
        return tuple(a for a in axes if a not in self.network.modes)

    @cached_property
    def labels(self) -> tuple[Int[Array, " n"], ...]:
        """The row of every factor that each entry selects; row 0 of a factor without modes."""
        numbers = [[self.network.modes.index(a) for a in self._split(f)[0]] for f in self.network.factors]
        return tuple(self._label(n) for n in numbers)

    def _label(self, modes: Sequence[int]) -> Int[Array, " n"]:
        label = namespace(self.entries.indices).zeros_like(self.entries.columns[0])
        for k in modes:
            label = label * self.entries.shape[k] + self.entries.columns[k]
        return label

    @cached_property
    def segments(self) -> tuple[Segments, ...]:
        """How to sum over the entries of every row."""
        return tuple(self._plan(k) for k in range(len(self.network.factors)))

    def _plan(self, k: int) -> Segments:
        modes = self._split(self.network.factors[k])[0]
        if len(modes) == 1:
            return self.entries.segments(self.network.modes.index(modes[0]))
        return Segments.of(self.labels[k], self.network.product(modes))

    @cached_property
    def gathered(self) -> Network:
        """The network of the rows that every entry selects, closed by ones where an axis stands alone."""
        factors = tuple(
            self.bonds_of(f) if self.coreless(f) else (ENTRY, *self.bonds_of(f)) for f in self.network.factors
        )
        lonely = [b for b in self.network.bonds if sum(b in f for f in factors) == 1]
        sizes = (*((b, self.network.size_of[b]) for b in self.network.bonds), (ENTRY, self.entries.nnz))
        return Network((*factors, (ENTRY,), *((b,) for b in lonely)), (ENTRY,), sizes)

    def coreless(self, axes: Axes) -> bool:
        """Whether a factor has no mode, so that all entries select the same."""
        return not self._split(axes)[0]


EXPLICIT = 200
"""Up to so many unknowns, steps are solved for directly."""


class Observed(Local):
    """The problem at a point. Holds, for each entry and factor, a row and its environment."""

    def __init__(self, problem: Problem, point: Point) -> None:
        self.problem, self.point = problem, point
        self.xp = namespace(*point)

    # What the entries select ----------------------------------------------------------------------------

    def rows(self, point: Point) -> list[Array]:
        """What every entry selects from each factor, with the bonds as axes; a core itself."""
        return [self._row(z, k) for k, z in enumerate(point)]

    def _row(self, matrix: Array, k: int) -> Array:
        axes = self.problem.network.factors[k]
        shape = self.problem.network.extent(self.problem.bonds_of(axes))
        if self.problem.coreless(axes):
            return self.xp.reshape(matrix, shape)
        return self.xp.reshape(self.xp.take(matrix, self.problem.labels[k], axis=0), (-1, *shape))

    @cached_property
    def arrays(self) -> list[Array]:
        """The rows of the point, and the ones that close the network."""
        network, z = self.problem.gathered, self.point[0]
        closing = [network.extent(f) for f in network.factors[len(self.point) :]]
        return self.rows(self.point) + [self.xp.ones(s, dtype=z.dtype, device=device_of(z)) for s in closing]

    @cached_property
    def _contracted(self) -> Environments:
        network = self.problem.gathered
        targets = [
            Target(1 << k, (ENTRY, *self.problem.bonds_of(f)))
            for k, f in enumerate(self.problem.network.factors)
        ]
        return Environments(network, targets, self.arrays)

    @cached_property
    def _environments(self) -> dict[int, Array]:
        return {}

    def environment(self, k: int) -> Num[Array, "n d"]:
        """E_f of the k-th factor, one row for each entry."""
        if k not in self._environments:
            array = self._contracted(k)
            self._environments[k] = self.xp.reshape(array, (array.shape[0], -1))
        return self._environments[k]

    # Half the sum of squares ----------------------------------------------------------------------------

    @cached_property
    def model(self) -> Num[Array, " n"]:
        """The values of the network at the entries."""
        return self._product(0, self.point[0])

    @cached_property
    def residual(self) -> Num[Array, " n"]:
        """Model minus entries."""
        return self.model - self.problem.entries.values

    @property
    def misfit(self) -> float:
        """The norm of the residual."""
        return size((self.residual,))

    @cached_property
    def value(self) -> float:
        """½ ‖residual‖² + ½ ridge ‖z‖²."""
        return 0.5 * self.misfit**2 + 0.5 * self.problem.ridge * dot(self.point, self.point)

    @cached_property
    def gradient(self) -> Point:
        """Jᴴ residual + ridge z."""
        return self._ridged(self.adjoint(self.residual), self.point)

    def gram(self, direction: Point) -> Point:
        """(JᴴJ + ridge I) times a direction."""
        return self._ridged(self.adjoint(self.jacobian(direction)), direction)

    def _ridged(self, image: Point, direction: Point) -> Point:
        ridge = self.problem.ridge
        return tuple(y + ridge * x for x, y in zip(direction, image, strict=True)) if ridge else image

    def jacobian(self, direction: Point) -> Num[Array, " n"]:
        """J x: how the values at the entries change."""
        return sum(self._product(k, x) for k, x in enumerate(direction))

    def _product(self, k: int, matrix: Array) -> Num[Array, " n"]:
        """The values with `matrix` in the place of the k-th factor."""
        if self._core(k):
            return self._contract({k: self._row(matrix, k)}, None, (ENTRY,))
        rows = self.xp.reshape(self._row(matrix, k), (-1, matrix.shape[1]))
        return self.xp.sum(self.environment(k) * rows, axis=1)

    def adjoint(self, values: Num[Array, " n"]) -> Point:
        """Jᴴ y."""
        return tuple(self._collected(k, values) for k in range(len(self.point)))

    def _collected(self, k: int, values: Num[Array, " n"]) -> Array:
        if self._core(k):
            bonds = self.problem.bonds_of(self.problem.network.factors[k])
            found = self._contract({len(self.point): conjugate(values)}, k, bonds)
            return self.xp.reshape(conjugate(found), (1, -1))
        environment, xp = self.environment(k), self.xp

        def rows(at: Int[Array, " k"]) -> Pair:
            return xp.take(values, at)[:, None], conjugate(xp.take(environment, at, axis=0))

        return self.problem.segments[k].products(rows, environment.shape[1])[:, 0, :]

    def _core(self, k: int) -> bool:
        return self.problem.coreless(self.problem.network.factors[k])

    def _contract(self, changed: dict[int, Array], without: int | None, outputs: Axes) -> Array:
        """The rows contracted, some replaced and one left out."""
        network = self.problem.gathered
        kept = [k for k in range(len(network.factors)) if k != without]
        graph = Network(tuple(network.factors[k] for k in kept), (), network.sizes)
        arrays = tuple(changed.get(k, self.arrays[k]) for k in kept)
        return run(lower_contraction(graph, outputs), arrays, self.xp)

    # Small problems: the Jacobian as a matrix ---------------------------------------------------------------

    def solve(self, target: Point, shift: float) -> Point | None:
        """(JᴴJ + (ridge + shift) I)⁺ target, if there are at most `EXPLICIT` unknowns."""
        if self.problem.network.numel > EXPLICIT or self.problem.entries.nnz > BLOCKS // EXPLICIT:
            return None
        xp, jacobian = self.xp, self._explicit
        eye = xp.eye(jacobian.shape[1], dtype=jacobian.dtype, device=device_of(jacobian))
        whole = xp.concat([xp.reshape(t, (-1,)) for t in target])
        solution = solve_psd(self._explicit_gram + (shift + self.problem.ridge) * eye, whole)
        ends = accumulate(prod(t.shape) for t in target)
        return tuple(
            xp.reshape(solution[end - prod(t.shape) : end], t.shape)
            for t, end in zip(target, ends, strict=True)
        )

    @cached_property
    def _explicit(self) -> Num[Array, "n unknowns"]:
        """J."""
        return self.xp.concat([self._columns(k) for k in range(len(self.point))], axis=1)

    def _columns(self, k: int) -> Num[Array, "n unknowns"]:
        z, xp = self.point[k], self.xp
        eye = xp.eye(z.shape[0], dtype=z.dtype, device=device_of(z))
        chosen = xp.take(eye, self.problem.labels[k], axis=0)
        return xp.reshape(chosen[:, :, None] * self.environment(k)[:, None, :], (chosen.shape[0], -1))

    @cached_property
    def _explicit_gram(self) -> Num[Array, "unknowns unknowns"]:
        return adjoint(self._explicit) @ self._explicit

    # The preconditioner: one block for every row ---------------------------------------------------------

    def precondition(self, residual: Point, shift: float) -> Point:
        """The inverse of the diagonal blocks of JᴴJ + shift I, one for every row of every factor."""
        return tuple(self._solved(k, r, shift) for k, r in enumerate(residual))

    def _solved(self, k: int, residual: Array, shift: float) -> Array:
        if (k, shift) not in self._inverses:
            self._inverses[k, shift] = self._inverse(k, shift + self.problem.ridge)
        inverse = self._inverses[k, shift]
        if inverse.ndim == 2:
            return inverse * residual
        return (inverse @ residual[:, :, None])[:, :, 0]

    @cached_property
    def _inverses(self) -> dict[tuple[int, float], Array]:
        return {}

    @cached_property
    def _blocks(self) -> dict[int, Array]:
        return {}

    def _inverse(self, k: int, shift: float) -> Array:
        """Inverse blocks, or inverse diagonals where blocks would be too large."""
        xp, width = self.xp, self.point[k].shape[1]
        if k not in self._blocks:
            large = self.point[k].shape[0] * width**2 > BLOCKS
            self._blocks[k] = self._diagonals(k) if large else self._gram_blocks(k)
        block = self._blocks[k]
        if block.ndim == 2:
            return 1.0 / (block + (shift + _floor(block)))
        diagonal = xp.linalg.diagonal(block)
        eye = xp.eye(width, dtype=block.dtype, device=device_of(block))
        tiny = _floor(xp.real(diagonal) if is_complex(diagonal) else diagonal)
        return xp.linalg.inv(block + (shift + tiny) * eye)

    def _gram_blocks(self, k: int) -> Num[Array, "rows d d"]:
        environment, xp = self.environment(k), self.xp

        def rows(at: Int[Array, " k"]) -> Pair:
            chosen = xp.take(environment, at, axis=0)
            return conjugate(chosen), chosen

        return self.problem.segments[k].products(rows, environment.shape[1])

    def _diagonals(self, k: int) -> Num[Array, "rows d"]:
        return self.problem.segments[k].sum(self.xp.abs(self.environment(k)) ** 2)


def _floor(diagonal: Array) -> float:
    """What to add so that no block is singular: a trifle of the largest entry."""
    xp = namespace(diagonal)
    return 100 * epsilon(diagonal) * float(xp.max(diagonal)) + 1e-300


def conjugate(x: Array) -> Array:
    """The complex conjugate; a real array itself."""
    return namespace(x).conj(x) if is_complex(x) else x


def _flat(factor: Array, order: tuple[int, ...], rows: int) -> Array:
    xp = namespace(factor)
    return xp.reshape(xp.permute_dims(factor, order), (rows, prod(factor.shape) // rows))
