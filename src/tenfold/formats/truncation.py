"""Truncation of tree networks: orthogonal to the root, then cut by singular values bond by bond."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.algebra import mode_dot
from tenfold.core.arrays import Array, is_traced, namespace, root
from tenfold.core.linalg import truncated_svd
from tenfold.core.network import Axis, Network
from tenfold.core.svd import rank_within
from tenfold.formats.branches import Branch, Link, branches, top
from tenfold.formats.orthogonalise import axis_of, folded, plain, push, swept, unfolded


@dataclass(frozen=True)
class Truncation:
    """A rounded network: factors, the one that holds the norm, exp(`log`) to multiply by, and the error."""

    arrays: tuple[Array, ...]
    log: float
    centre: int
    error: float

    @property
    def numel(self) -> int:
        """Number of stored elements."""
        return sum(math.prod(a.shape) for a in self.arrays)


def rounded_tree(
    network: Network, factors: Sequence[Array], limits: Mapping[Axis, int], tol: float
) -> Truncation:
    """Round a network that is a tree: QR factorisations to a leaf, truncated SVDs from there to the root.

    Every bond discards at most tol/√bonds of the norm. Bonds are cut from the leaves to the root; each cut
    is an orthogonal projection of the modes below it, and all of them commute. Hence the squared errors add
    up exactly, and no bond discards more than the small singular values of the whole tensor's unfolding.
    """
    trees = branches(network, top(network))
    starts = [tree.first for tree in trees]
    arrays, log = swept(network, factors, branches(network, *starts))
    return truncated(network, arrays, log, starts, limits, tol / max(1, len(network.bonds)) ** 0.5)


def truncated(
    network: Network,
    arrays: list[Array],
    log: float,
    starts: Sequence[int],
    limits: Mapping[Axis, int],
    share: float,
) -> Truncation:
    """Cut the bonds of orthogonal factors, whose centres, of norm 1, are `starts`: one in each tree.

    A bond may lose `share`. Of several trees, the squared errors e² combine to 1 - Π(1 - e²). Where a bond
    is left with more than its neighbours can carry, it is cut once more, without a loss.
    """
    trees = branches(network, top(network))
    sizes = resized(network, arrays).ranks
    wanted = network.with_ranks({b: min(r, limits.get(b, r)) for b, r in sizes.items()})
    least = feasible(wanted, trees)
    pairs = list(zip(trees, starts, strict=True))
    squares = [_truncate(network, arrays, *p, least, share) for p in pairs]
    left = resized(network, arrays)
    least = feasible(left, trees)
    if least != left.ranks:
        for tree in trees:
            _truncate(network, arrays, tree, tree.root, least, 0.0)
    return Truncation(tuple(arrays), log, trees[0].root, _combined(squares, log))


def _combined(squares: Sequence[float], log: float) -> float:
    """The root of 1 - Π(1 - e²) for squared errors e²; 0 of a tensor that is zero."""
    if is_traced(log, *squares):
        return _traced_combined(squares, log)
    kept = sum(math.log1p(-min(square, 1 - 1e-15)) for square in squares)
    return 0.0 if log == -math.inf else math.sqrt(max(0.0, -math.expm1(kept)))


def _traced_combined(squares: Sequence[Any], log: Array) -> Array:
    xp = namespace(log)
    kept = sum(xp.log1p(-xp.minimum(square, 1 - 1e-15)) for square in squares)
    return xp.where(log > -math.inf, root(-xp.expm1(kept)), 0.0)


def feasible(network: Network, trees: Sequence[Branch]) -> dict[Axis, int]:
    """The sizes of the bonds, each no more than the other axes of either factor carry.

    As `Network.clipped` of a tree, but in time proportional to the number of factors.
    """
    sizes, links = dict(network.sizes), [link for tree in trees for link in tree.links]
    while True:
        before = dict(sizes)
        for ends in ([(x.bond, x.child) for x in reversed(links)], [(x.bond, x.parent) for x in links]):
            for b, f in ends:
                room = math.prod(sizes[a] for a in network.factors[f] if a != b)
                sizes[b] = min(sizes[b], room)
        if sizes == before:
            return {b: sizes[b] for b in network.bonds}


def resized(network: Network, arrays: Sequence[Array]) -> Network:
    """The network with the sizes of these factors."""
    pairs = zip(network.factors, arrays, strict=True)
    return network.with_ranks({a: n for axes, f in pairs for a, n in zip(axes, f.shape, strict=True)})


def _truncate(
    network: Network, arrays: list[Array], tree: Branch, centre: int, limits: Mapping[Axis, int], share: float
) -> float:
    """Cut the bonds of one tree, children before parents; the sum of squares of what was discarded.

    The centre, to which all other factors are orthonormal, walks along, and ends at the root. A leaf is not
    visited when the centre is above it: it is projected.
    """
    up, parents, square = {link.child: link for link in tree.links}, tree.parents, 0.0
    for link in reversed(tree.links):
        above = link.child not in parents and centre != link.child
        for step in _way_down(up, centre, link.parent if above else link.child):
            push(arrays, network, step, up=False)
        square += _cut(arrays, network, link, limits[link.bond], share, above) ** 2
        centre = link.parent
    return square


def _way_down(up: Mapping[int, Link], start: int, end: int) -> list[Link]:
    """The links from a factor to one below it."""
    way: list[Link] = []
    while end != start:
        way.append(up[end])
        end = up[end].parent
    return way[::-1]


def _cut(arrays: list[Array], network: Network, link: Link, limit: int, share: float, above: bool) -> float:
    """Cut one bond by the truncated SVD of the centre; the norm of what is discarded.

    The centre is the parent (`above`) or the child; in the end it is the parent.
    """
    source, target = (link.parent, link.child) if above else (link.child, link.parent)
    axis = axis_of(network, source, link.bond)
    matrix = unfolded(arrays[source], axis)
    u, s, vh = truncated_svd(matrix, min(matrix.shape))
    rank = rank_within(limit, s, share)
    lost = plain(namespace(s).linalg.vector_norm(s[rank:]))
    u, s, vh = u[:, :rank], s[:rank], vh[:rank, :]
    left, right = (u * s, vh) if above else (u, s[:, None] * vh)
    arrays[source] = folded(left, arrays[source], axis)
    arrays[target] = mode_dot(arrays[target], right, axis_of(network, target, link.bond))
    return lost
