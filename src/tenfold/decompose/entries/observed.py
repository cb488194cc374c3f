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

from jaxtyping import Int, Num

from tenfold.core.arrays import Array, conjugate, device_of, namespace
from tenfold.core.contraction import lower_contraction
from tenfold.core.entries import Entries
from tenfold.core.network import Axes, Network
from tenfold.core.program import run
from tenfold.core.segments import Pair, Segments
from tenfold.decompose.entries.gram_matrices import RowBlocks, WholeGram, is_small, jacobian_columns
from tenfold.decompose.entries.row_matrices import bonds_in, flat, folded, modes_in
from tenfold.decompose.local_problem import Local, Point, dot, size
from tenfold.decompose.networks.environments import Environments, Target

ENTRY = "n"
"""The axis that numbers the entries."""


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
        return flat(self.network, factors)

    def folded(self, point: Point) -> tuple[Array, ...]:
        """The way back."""
        return folded(self.network, point)

    @cached_property
    def labels(self) -> tuple[Int[Array, " n"], ...]:
        """The row of every factor that each entry selects; row 0 of a factor without modes."""
        numbers = [
            [self.network.modes.index(a) for a in modes_in(self.network, f)] for f in self.network.factors
        ]
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
        modes = modes_in(self.network, self.network.factors[k])
        if len(modes) == 1:
            return self.entries.segments(self.network.modes.index(modes[0]))
        return Segments.of(self.labels[k], self.network.product(modes))

    @cached_property
    def gathered(self) -> Network:
        """The network of the rows that every entry selects, closed by ones where an axis stands alone."""
        factors = tuple(
            bonds_in(self.network, f) if self.coreless(f) else (ENTRY, *bonds_in(self.network, f))
            for f in self.network.factors
        )
        lonely = [b for b in self.network.bonds if sum(b in f for f in factors) == 1]
        sizes = (*((b, self.network.size_of[b]) for b in self.network.bonds), (ENTRY, self.entries.nnz))
        return Network((*factors, (ENTRY,), *((b,) for b in lonely)), (ENTRY,), sizes)

    def coreless(self, axes: Axes) -> bool:
        """Whether a factor has no mode, so that all entries select the same."""
        return not modes_in(self.network, axes)


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
        shape = self.problem.network.extent(bonds_in(self.problem.network, axes))
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
            Target(1 << k, (ENTRY, *bonds_in(self.problem.network, f)))
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
            bonds = bonds_in(self.problem.network, self.problem.network.factors[k])
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

    # Parts of the Gram matrix ----------------------------------------------------------------------------

    def solve(self, target: Point, shift: float) -> Point | None:
        """(JᴴJ + (ridge + shift) I)⁺ target, if there are few unknowns."""
        small = is_small(self.problem.network.numel, self.problem.entries.nnz)
        return self._whole.solve(target, shift + self.problem.ridge) if small else None

    @cached_property
    def _whole(self) -> WholeGram:
        labels = self.problem.labels
        return WholeGram(
            [jacobian_columns(z, labels[k], self.environment(k)) for k, z in enumerate(self.point)]
        )

    def precondition(self, residual: Point, shift: float) -> Point:
        """The inverse of the blocks of JᴴJ + (ridge + shift) I, one for every row of every factor."""
        total = shift + self.problem.ridge
        return tuple(b.solve(r, total) for b, r in zip(self._blocks, residual, strict=True))

    @cached_property
    def _blocks(self) -> tuple[RowBlocks, ...]:
        segments = self.problem.segments
        return tuple(
            RowBlocks(self.environment(k), segments[k], z.shape[0]) for k, z in enumerate(self.point)
        )
