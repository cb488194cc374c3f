"""Rounding of networks with cycles: rings, PEPS, MERA. They are cut open to trees, rounded, and closed again.

A bond that is cut becomes two modes of the open tensor, whose diagonal summed up is the closed one. By the
inequality of Cauchy and Schwarz, ‖closed‖ ≤ √(product of the sizes of the cut bonds) ‖open‖, so that a
tolerance divided by this root is kept.

Source: Zhao, Zhou, Xie, Zhang & Cichocki 2016, section 4, arXiv:1606.05535.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tenfold.algebra import outer
from tenfold.core.arrays import Array, device_of, epsilon, namespace
from tenfold.core.network import Axis, Network
from tenfold.formats.base import General
from tenfold.formats.branches import branches, holders_of, is_tree, opened, path_between, spanning, top
from tenfold.formats.orthogonalise import axis_of, plain, real, swept
from tenfold.formats.truncation import Truncation, resized, rounded_tree, truncated

CARRIED_AT_MOST = 10**7  # elements of a network whose cut bonds run along its tree
FINE = 1e-10  # relative accuracy of the error that is reported


def rounded_cycles(
    network: Network, factors: Sequence[Array], limits: Mapping[Axis, int], tol: float
) -> Truncation:
    """The smaller of two roundings that keep the tolerance; if one does not, the closer one.

    One opens the network. The other carries the cut bonds along the tree, which makes them 1 and the bonds
    on their way as many times larger (a ring becomes a train): there no tolerance is lost to the root above.
    """
    smallest = frozenset(network.bonds) - spanning(network, lambda b: (network.size_of[b],))
    tries = [rounded_open(network, factors, limits, tol, smallest)]
    if network.numel * network.product(tuple(smallest)) ** 2 <= CARRIED_AT_MOST:
        wide = carried(network, factors, smallest)
        tries.append(rounded_tree(opened(resized(network, wide), smallest), wide, limits, tol))
    enough = max(tol, 10 * epsilon(factors[0]))
    best = min(tries, key=lambda t: (t.error > enough, t.numel if t.error <= enough else t.error))
    return best if best.error < math.inf else replace(best, error=math.nan)


# In passes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """A rounding of a network that is opened at `cut`, from the factors `before`, which are swept."""

    network: Network
    cut: frozenset[Axis]
    before: Sequence[Array]
    found: Truncation

    @property
    def bound(self) -> float:
        """An upper bound for the norm of what was lost, closed, in units of the open tensor's norm."""
        return self.found.error * self.network.product(tuple(self.cut)) ** 0.5


@dataclass(frozen=True)
class Lost:
    """What a pass has discarded, closed again: exp(log) times `value`, in units of the tensor's norm."""

    value: General
    log: float


def rounded_open(
    network: Network,
    factors: Sequence[Array],
    limits: Mapping[Axis, int],
    tol: float,
    smallest: frozenset[Axis],
) -> Truncation:
    """Round in passes, each with other bonds open, until each bond has been in a tree.

    The first one opens the `smallest` bonds, or if that is one of a cycle, the bond of the cycle where the
    first result is smallest; without a tolerance, where the last result is closest.
    """
    whole, cuts = _log_norm(network, factors, smallest), _first_cuts(network, smallest)
    if tol > 0:
        trials = [one_pass(network, factors, limits, tol / 2, cut, whole) for cut in cuts]
        cuts = [min(trials, key=lambda p: (p.found.numel, p.bound)).cut]
    runs = [in_passes(network, factors, limits, tol, cut, whole) for cut in cuts]
    steps = min(runs, key=_distance) if len(runs) > 1 else runs[0]
    drowned = whole == -math.inf and any(step.found.error > 0 for step in steps)
    return replace(steps[-1].found, error=math.inf if drowned else measured(steps, whole))


def in_passes(
    network: Network,
    factors: Sequence[Array],
    limits: Mapping[Axis, int],
    tol: float,
    cut: frozenset[Axis],
    whole: float,
) -> list[Pass]:
    """The passes that begin with `cut`, for a tensor of norm exp(whole).

    A pass may lose half of the tolerance that is left, the last one all of it. What each has lost is
    measured, not only bounded, which leaves more to the next ones.
    """
    steps, waiting = [one_pass(network, factors, limits, tol / 2, cut, whole)], cut
    while waiting:
        last = steps[-1].found
        network = resized(network, last.arrays)
        cut = frozenset(network.bonds) - spanning(network, _first(waiting, network))
        waiting = waiting & cut
        left = (tol - measured(steps, whole)) / (2 if waiting else 1) if tol > 0 else 0.0
        steps.append(one_pass(network, last.arrays, limits, left, cut, whole, last.log))
    return steps


def _first_cuts(network: Network, smallest: frozenset[Axis]) -> list[frozenset[Axis]]:
    """Sets of bonds to begin with: each bond of a single cycle, else the smallest ones."""
    if len(smallest) > 1:
        return [smallest]
    return [frozenset({b}) for b in network.bonds if is_tree(opened(network, {b}))]


def _first(waiting: frozenset[Axis], network: Network) -> Callable[[Axis], tuple[int, ...]]:
    """Bonds that have not been in a tree come first, then larger ones."""
    return lambda b: (int(b in waiting), network.size_of[b])


def one_pass(
    network: Network,
    factors: Sequence[Array],
    limits: Mapping[Axis, int],
    tol: float,
    cut: frozenset[Axis],
    whole: float,
    log: float = 0.0,
) -> Pass:
    """Open the bonds in `cut` of exp(log) times a network, and lose at most `tol` exp(whole)."""
    tree = opened(network, cut)
    starts = [part.first for part in branches(tree, top(tree))]
    before, size = swept(tree, factors, branches(tree, *starts))
    log += size
    allowed = max(0.0, tol) * math.exp(whole - log) if whole > -math.inf else 0.0
    share = allowed / math.sqrt(network.product(tuple(cut)) * max(1, len(tree.bonds)))
    return Pass(network, cut, tuple(before), truncated(tree, before, log, starts, limits, share))


def _log_norm(network: Network, factors: Sequence[Array], cut: frozenset[Axis]) -> float:
    """The logarithm of the closed tensor's norm; minus infinity where it drowns in that of the open one."""
    tree = opened(network, cut)
    arrays, log = swept(tree, factors, branches(tree, top(tree)))
    square = plain(General(tuple(arrays), network.factors).norm()) ** 2
    return log + 0.5 * math.log(square) if square > 10 * epsilon(arrays[0]) else -math.inf


def _lost(step: Pass, whole: float) -> list[Lost]:
    """The closed difference of two open tensors, made small first, so that nothing cancels in its norm."""
    if step.found.log == -math.inf or whole == -math.inf or step.found.error == 0:
        return []
    graph = opened(step.network, step.cut).factors
    difference = General(tuple(step.before), graph) - General(step.found.arrays, graph)
    found = rounded_tree(difference.network, difference.factors, {}, FINE)
    if found.log == -math.inf:
        return []
    return [Lost(General(found.arrays, step.network.factors), found.log + step.found.log - whole)]


def measured(steps: Sequence[Pass], whole: float) -> float:
    """The norm of all that some passes have lost together, relative to exp(whole)."""
    total, lost = 0.0, [part for step in steps for part in _lost(step, whole)]
    for n, a in enumerate(lost):
        for b in lost[n:]:
            product = math.exp(a.log + b.log) * real(a.value.inner(b.value))
            total += product if a is b else 2 * product
    return math.sqrt(max(0.0, total))


def _distance(steps: Sequence[Pass]) -> float:
    """The square of what all passes have lost, to half the digits, which is enough to compare."""
    graph, log = steps[0].network.factors, steps[-1].found.log - steps[0].found.log
    x, y = General(tuple(steps[0].before), graph), General(steps[-1].found.arrays, graph)
    factor = math.exp(log) if log > -math.inf else 0.0
    return real(x.inner(x)) - 2 * factor * real(x.inner(y)) + factor**2 * real(y.inner(y))


# With the cut bonds carried along --------------------------------------------------------------------------


def carried(network: Network, factors: Sequence[Array], cut: frozenset[Axis]) -> list[Array]:
    """The same tensor with the bonds in `cut` of size 1, each made part of all bonds between its two factors.

    >>> import numpy as np
    >>> sizes = (("R0", 2), ("m0", 5), ("R1", 3), ("m1", 4))
    >>> ring = Network((("R0", "m0", "R1"), ("R1", "m1", "R0")), ("m0", "m1"), sizes)
    >>> [f.shape for f in carried(ring, [np.ones((2, 5, 3)), np.ones((3, 4, 2))], frozenset({"R0"}))]
    [(1, 5, 6), (6, 4, 1)]
    """
    arrays, tree = list(factors), opened(network, cut)
    for b in cut:
        first, last = holders_of(network)[b]
        size, way = arrays[first].shape[axis_of(network, first, b)], path_between(tree, first, last)
        for end, link in ((first, way[0]), (last, way[-1])):
            arrays[end] = _fused(arrays[end], axis_of(network, end, b), axis_of(network, end, link.bond))
        for link, onward in pairwise(way):
            first_axis, second_axis = (axis_of(network, link.parent, x.bond) for x in (link, onward))
            arrays[link.parent] = _widened(arrays[link.parent], first_axis, second_axis, size)
    return arrays


def _fused(array: Array, axis: int, into: int) -> Array:
    """One axis made the faster part of another, and 1 where it was."""
    xp, shape = namespace(array), list(array.shape)
    moved = xp.moveaxis(array, axis, into if axis < into else into + 1)
    shape[into], shape[axis] = shape[into] * shape[axis], 1
    return xp.reshape(moved, tuple(shape))


def _widened(array: Array, first: int, second: int, size: int) -> Array:
    """The factor with a new index that runs through it, as the faster part of two of its axes."""
    xp = namespace(array)
    eye = xp.eye(size, dtype=array.dtype, device=device_of(array))
    wide = outer([array, eye])
    extra = {first: wide.ndim - 2, second: wide.ndim - 1}
    order = [n for k in range(array.ndim) for n in ((k, extra[k]) if k in extra else (k,))]
    shape = [n * size if k in extra else n for k, n in enumerate(array.shape)]
    return xp.reshape(xp.permute_dims(wide, tuple(order)), tuple(shape))
