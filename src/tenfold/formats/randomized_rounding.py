"""Randomised rounding: sketch first, orthogonalise at the small ranks only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tenfold.algebra import mode_dot
from tenfold.core.arrays import Array, adjoint, cast_like, epsilon, to_compute, values_needed
from tenfold.core.errors import OptionError, RankError, ShapeError, UnsupportedError
from tenfold.core.network import Axis
from tenfold.core.noise import as_generator
from tenfold.formats.base import Format
from tenfold.formats.branches import branches, top
from tenfold.formats.graphs import Ranks
from tenfold.formats.orthogonalise import (
    axis_of,
    computed,
    folded,
    limit_of,
    real,
    refilled,
    scaled,
    swept,
    unfolded,
    unit,
)
from tenfold.formats.rounding import TRACED, Rounded, bond_limits, check_tolerance
from tenfold.formats.sketches import Fixed, Growing, Terms, evenly_scaled
from tenfold.formats.truncation import truncated

F = TypeVar("F", bound=Format)

SKETCHED = 0.1  # the part of the tolerance that sketches may lose; the SVDs may lose the rest


@values_needed("rounded_randomly", TRACED)
def rounded_randomly(
    value: F | Sequence[F],
    ranks: Ranks | None = None,
    tol: float = 0.0,
    *,
    oversampling: int | None = None,
    generator: Any = None,
    measure: bool = True,
) -> Rounded[F]:
    """`rounded` for new ranks far below the old; also of a sum of several tensors, which is never formed.

    Randomise, then orthogonalise: the tensor is contracted with a random one of the same graph, whose ranks
    are the new ones and `oversampling` more (by default as many more, at least 8). From the leaves to the
    root these contractions, small matrices, show which combinations of each factor's columns matter, and
    only those are made orthonormal, so that no large factor needs a QR factorisation. Truncated SVDs of
    small factors follow. The error is close to that of `rounded`; with less oversampling it may be two or
    three times as large where singular values decline slowly.

    Without ranks, the sketches of each bond grow in blocks until what they miss of an independent block is
    within the tolerance: likely, but not certain, to keep `tol`; look at `error`.

    Of a sequence of tensors with the same graph and shape, it is the sum that is rounded, at the cost of
    its terms one by one: s terms of rank r cost s r², where their sum has the rank s r and costs s² r².

    With `measure=False` the error is not measured and NaN; for large ranks the measurement, which is a
    norm, takes longer than the rounding. `generator` is a seed or a generator of the array library.

    Cost for a core of a train of mode size n: O(n r² k) where k is the new rank, instead of O(n r³).

    Raises:
        RankError: if neither ranks nor a tolerance are given, or the ranks do not fit the bonds.
        ShapeError: if the terms of a sum differ in graph or shape.
        UnsupportedError: for networks with cycles or shared bonds, or that fall into parts;
            for traced arrays.
        OptionError: for a tolerance outside 0 <= tol < 1, or negative oversampling.
        WeightError: if a factor holds NaN or infinite entries.

    Source: Al Daas, Ballard, Cazeaux, Hallman, Międlar, Pasha, Reid & Saibaba, SIAM J. Sci. Comput. 45(1),
    2023, arXiv:2110.04393, algorithm 3.2, carried over to trees; the growth in blocks as in arXiv:2511.03598.

    >>> import numpy as np
    >>> from tenfold.formats import TensorTrain
    >>> terms = [TensorTrain.random((8,) * 4, 2, like=np.zeros(()), generator=k) for k in range(3)]
    >>> found = rounded_randomly(terms, 6, generator=0)
    >>> found.value.ranks, found.error < 1e-10
    ({'R1': 6, 'R2': 6, 'R3': 6}, True)
    """
    values = _checked(value, ranks, tol, oversampling)
    network, limits = values[0].network, bond_limits(values[0], ranks)
    trees = branches(network, top(network))
    if len(trees) > 1:
        raise UnsupportedError("the network falls into several parts.", "Round the parts one by one.")
    start = trees[0].first
    terms = Terms(network, branches(network, start)[0], list(zip(*map(computed, values), strict=True)))
    stream, share = as_generator(generator, like=terms.parts[0][0]), tol / max(1, len(network.bonds)) ** 0.5
    bases: Fixed | Growing
    if ranks is None:
        bases, share = Growing(terms, SKETCHED * share, stream), share * (1 - SKETCHED)
    else:
        bases = Fixed(terms, _widths(terms, limits, oversampling), stream)
    arrays, log = projected(terms, bases)
    found = truncated(network, arrays, log, [start], limits, share)
    arrays = scaled(found.arrays, found.centre, found.log, limit_of(values[0]))
    wide = [v.map(to_compute) for v in values]
    result = refilled(wide[0], arrays)
    error = relative_error(wide, result) if measure else math.nan
    return Rounded(result.map(lambda f: cast_like(f, values[0].factors[0])), error)


def projected(terms: Terms, bases: Fixed | Growing) -> tuple[list[Array], float]:
    """Leaves to root: the sum of the terms in orthonormal bases, the root of norm 1; the norm's logarithm."""
    parts, log, factors = list(terms.parts), 0.0, terms.network
    for link in reversed(terms.tree.links):
        axis, above = (axis_of(factors, f, link.bond) for f in (link.child, link.parent))
        matrices = [unfolded(p, axis) for p in parts[link.child]]
        basis = bases.basis(link.bond, matrices)
        parts[link.child] = [folded(basis, parts[link.child][0], axis)]
        rest, size = evenly_scaled([adjoint(basis) @ m for m in matrices])
        log += math.log(size) if size > 0 else -math.inf
        parts[link.parent] = [mode_dot(p, m, above) for p, m in zip(parts[link.parent], rest, strict=True)]
    root = terms.tree.root
    whole, size = unit(sum(parts[root][1:], start=parts[root][0]))
    return [whole if k == root else p[0] for k, p in enumerate(parts)], log + size


def relative_error(values: Sequence[F], result: F) -> float:
    """‖x - result‖ / ‖x‖ for the sum x of `values`, from inner products unless these would cancel."""
    whole = sum(real(a.inner(b)) for a in values for b in values)
    mixed = sum(real(a.inner(result)) for a in values)
    lost = 1 - (2 * mixed - real(result.inner(result))) / whole if 0 < whole < math.inf else 0.0
    if lost > epsilon(result.factors[0]) ** 0.5:
        return math.sqrt(lost)
    total = sum(values[1:], start=values[0])
    logs = [_log_norm(x) for x in (total - result, total)]
    return math.exp(logs[0] - logs[1]) if logs[1] > -math.inf else 0.0


def _log_norm(value: Format) -> float:
    network = value.network
    return swept(network, value.factors, branches(network, 0))[1]


def _widths(terms: Terms, limits: Mapping[Axis, int], oversampling: int | None) -> dict[Axis, int]:
    """The columns of the sketch of each bond; all that there are where its rank has no limit."""
    sizes = {
        link.bond: sum(
            p.shape[axis_of(terms.network, link.child, link.bond)] for p in terms.parts[link.child]
        )
        for link in terms.tree.links
    }
    more = {b: max(8, r) if oversampling is None else oversampling for b, r in limits.items()}
    return {b: min(n, limits[b] + more[b]) if b in limits else n for b, n in sizes.items()}


def _checked(value: F | Sequence[F], ranks: Ranks | None, tol: float, oversampling: int | None) -> list[F]:
    """The terms of the sum."""
    check_tolerance(tol)
    if oversampling is not None and oversampling < 0:
        raise OptionError(f"oversampling came as {oversampling}.", "Give 0 or more.")
    if ranks is None and tol == 0:
        raise RankError("neither ranks nor a tolerance came.", "Give ranks, or a tolerance: tol=1e-2.")
    values = [value] if isinstance(value, Format) else list(value)
    kinds = {(type(v), v.graph, v.shape, v.network.factors) for v in values}
    if len(kinds) != 1:
        raise ShapeError(
            f"expected terms of one graph and shape, but got {len(kinds)} kinds in {len(values)} terms.",
            "Give at least one tensor, all of the same format and shape, with the same modes whole.",
        )
    return values
