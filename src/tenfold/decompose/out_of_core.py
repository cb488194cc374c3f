"""Tucker and tensor train of Dask arrays that are larger than memory.

The tensor is projected on the basis of one mode after another. Each basis costs one pass over the chunks (two
where less than 1e-5 of the norm is discarded), each projection another; as soon as what is left fits into
memory, it is computed, and the rest is as for any array. Errors are the true ones: by the difference of the
squared norms where that has digits to spare, else by one more pass.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from tenfold.algebra import mode_dot
from tenfold.core import chunked, leading_passes, passes
from tenfold.core.arrays import Array, adjoint, is_chunked, namespace
from tenfold.core.leading import leading
from tenfold.core.network import Network, bond
from tenfold.core.passes import Modes
from tenfold.core.pieces import frobenius, together
from tenfold.decompose.base import Fit, relative
from tenfold.decompose.cuts import Basis, cheapest_first, ranks
from tenfold.decompose.trains.ends import cut_ends, train_of
from tenfold.formats import Format, TensorTrain, Tucker

F = TypeVar("F", bound=Format)

CANCELS = 1e-9
"""Squared relative errors above this are read off the norms: to about 1e-6 of themselves, in float64."""


Finder = Callable[..., leading_passes.Cut]
"""`leading_passes.leading` or what does the same."""


def sequential_tucker(
    tensor: Array,
    network: Network,
    tol: float,
    finder: Finder = leading_passes.leading,
    basis_of: Basis = leading,
) -> Fit[Tucker]:
    """ST-HOSVD, as `cuts.sequential`. Modes that would be cut at a price in passes wait for the others.

    `finder` finds bases while the tensor is large, `basis_of` when it is in memory.
    """
    core, whole, discarded = tensor, None, []
    share = tol / max(1, len(network.bonds)) ** 0.5
    matrices: list[Array | None] = [None] * tensor.ndim
    pending = cheapest_first(tensor.shape, network)
    while pending:
        k, r = pending.pop(_cheapest_to_load(core, [(k,) for k, _ in pending]))
        if r >= core.shape[k] and tol <= 0:
            matrices[k] = np.eye(r, dtype=passes.wide(tensor))
            continue
        if is_chunked(core):
            cut = finder(core, (k,), r, share, whole)
            whole = cut.whole if whole is None else whole
            basis, lost, core = cut.basis, cut.discarded, _projected(core, cut, k)
        else:
            basis, lost = basis_of(core, k, r, share * (whole or 0.0))
            core = mode_dot(core, adjoint(basis), k)
        matrices[k] = basis
        discarded.append(lost)
    return _fit(tensor, Tucker(core, tuple(matrices)), core, whole, discarded)


def _projected(x: Array, cut: leading_passes.Cut, k: int) -> Array:
    """x ×ₖ Uᴴ."""
    product = passes.project(x, cut.basis, (k,)) if cut.projection is None else cut.projection
    return namespace(product).moveaxis(product, 0, k)


def tucker(tensor: Array, network: Network, tol: float) -> Fit[Tucker]:
    """HOSVD: every basis from the tensor itself, the core in one more pass, or lazy if it is too large.

    Modes that are not cut into chunks share one pass for their bases.
    """
    share = tol / max(1, len(network.bonds)) ** 0.5
    cut = [(k, r) for k, r in ranks(network) if r is not None]
    uncut = [k for k, _ in cut if tensor.numblocks[k] == 1 and tensor.shape[k] ** 2 <= tensor.size]
    known = dict(zip(uncut, passes.grams(tensor, [(k,) for k in uncut]) if uncut else [], strict=True))
    found = {k: leading_passes.leading(tensor, (k,), r, share, known=known.get(k)) for k, r in cut}
    matrices = [found[k].basis if k in found else None for k in range(tensor.ndim)]
    core, discarded = _core(tensor, matrices)
    whole = next((c.whole for c in found.values()), None)
    return _fit(tensor, Tucker(core, tuple(matrices)), core, whole, discarded)


def _core(tensor: Array, matrices: Sequence[Array | None]) -> tuple[Array, list[float]]:
    """The projection on all bases: in memory, or mode by mode where it is too large.

    Then it is lazy, and comes with the norms of what each basis takes from it, which cost a pass each.
    """
    ranks = (n if b is None else b.shape[1] for n, b in zip(tensor.shape, matrices, strict=True))
    if math.prod(ranks) * np.dtype(passes.wide(tensor)).itemsize <= chunked.IN_MEMORY:
        return passes.project_all(tensor, matrices), []
    core, discarded = tensor, []
    for k, basis in enumerate(matrices):
        if basis is not None and basis.shape[1] < core.shape[k]:
            discarded.append(passes.outside(core, basis, k))
        if basis is not None:
            core = namespace(core).moveaxis(passes.project(core, basis, (k,)), 0, k)
    return core, discarded


def train(
    tensor: Array,
    network: Network,
    tol: float,
    finder: Finder = leading_passes.leading,
    basis_of: Basis = leading,
) -> Fit[TensorTrain]:
    """TT-SVD from both ends, as `train_ends.cut_train`; `finder` and `basis_of` as in `sequential_tucker`."""
    rest, whole, discarded = tensor, None, [0.0]
    share = tol / max(1, len(network.bonds)) ** 0.5
    left = right = 0  # axes of `rest` that together are the bond of that end
    heads: list[Array] = []
    tails: list[Array] = []
    while is_chunked(rest) and len(heads) + len(tails) < tensor.ndim - 1:
        ends = (tuple(range(left + 1)), tuple(range(rest.ndim - 1 - right, rest.ndim)))
        at_left = _left_first(rest, ends)
        rows = ends[0] if at_left else ends[1]
        rank = network.size_of[bond(len(heads) + 1 if at_left else tensor.ndim - 1 - len(tails))]
        size, axes = math.prod(rest.shape[k] for k in rows), len(rows)
        if rank >= size and tol <= 0:
            basis = np.eye(size, dtype=passes.wide(tensor))
        else:
            cut = finder(rest, rows, rank, share, whole)
            whole, basis, axes = cut.whole if whole is None else whole, cut.basis, 1
            discarded.append(cut.discarded)
            rest = passes.project(rest, basis, rows) if cut.projection is None else cut.projection
            rest = rest if at_left else namespace(rest).moveaxis(rest, 0, -1)
        if at_left:
            heads, left = [*heads, basis], axes
        else:
            tails, right = [*tails, basis.T], axes
    share *= 0.0 if whole is None else whole
    heads, rest, tails, lost = cut_ends(rest, heads, tails, network, share, basis_of)
    value = train_of(tensor.shape, heads, rest, tails[::-1])
    return _fit(tensor, value, rest, whole, [*discarded, *lost])


def _cheapest_to_load(x: Array, sides: Sequence[Modes]) -> int:
    """The first of some unfoldings; one whose columns fit a pass goes before those whose columns do not."""
    if not is_chunked(x):
        return 0
    return min(range(len(sides)), key=lambda n: passes.column_parts(x, sides[n]) > 1)


def _left_first(x: Array, ends: tuple[Modes, Modes]) -> bool:
    """Whether the unfolding of the left end is lower, and no dearer to load."""
    height = [math.prod(x.shape[k] for k in rows) for rows in ends]
    parts = [passes.column_parts(x, rows) for rows in ends]
    return parts[0] == 1 and height[0] <= height[1] if 1 in parts else height[0] <= height[1]


def _fit(tensor: Array, value: F, rest: Array, whole: float | None, discarded: Sequence[float]) -> Fit[F]:
    """The fit, with the true error of an orthogonal projection whose coordinates are `rest`."""
    whole = passes.norm(tensor) if whole is None else whole
    if is_chunked(rest):
        return Fit(value, relative(together(*discarded), whole))
    kept = frobenius(rest)
    square = (whole - kept) * (whole + kept)
    if square <= CANCELS * whole**2:
        return Fit(value, relative(passes.distance(tensor, lambda at: value[at].dense()), whole))
    return Fit(value, relative(square**0.5, whole))
