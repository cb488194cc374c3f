"""Block terms without iteration, from the invariant subspaces of a matrix pencil."""

from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from tenfold.algebra import mode_dot, unfold
from tenfold.core.arrays import Array, adjoint, epsilon, namespace
from tenfold.core.eigen import eigenbasis
from tenfold.core.errors import UnsupportedError
from tenfold.core.linalg import leading_left
from tenfold.core.network import Network, bond
from tenfold.core.noise import as_generator, normal
from tenfold.decompose.base import methods, norm, number
from tenfold.formats import BlockTerm, Tucker

PENCILS = 4
"""How many pencils to try; the best counts."""

PROBES = 3
"""By how many other combinations of slices vectors are told to belong together."""


class Terms(NamedTuple):
    """The sizes of a sum of Tucker terms: how many, and the ranks of each."""

    number: int
    ranks: tuple[int, ...]


def block_term_gevd(tensor: Array, network: Network, generator: Any) -> BlockTerm | None:
    """The terms of a sum of Tucker terms with two modes at least as long as all their ranks together.

    Slices over these two modes are X_k = A D_k Bᵀ, where D_k is block diagonal, one block for each term. So
    X_k X_l⁻¹ = A D_k D_l⁻¹ A⁻¹ has invariant subspaces, spanned by the columns of each block of A. Their
    eigenvectors are put together by other slices: in the basis V of eigenvectors, V⁻¹ X_m X_l⁻¹ V is zero
    between vectors of different terms; where the third rank is 1 (L, L, 1) the blocks are multiples of the
    identity, and vectors belong together that have the same diagonal entries. With A, the tensor falls into
    its terms, which ST-HOSVD compresses.

    Exact up to a few digits where the tensor is such a sum, else no more than a start. None where the modes
    are too short or differ in rank, or the library has no eigenvectors of general matrices.

    Source: De Lathauwer, SIAM J. Matrix Anal. Appl. 30(3), 2008, part II, theorems 4.1 and 5.1; the
    grouping by commuting slices is joint block diagonalisation, Nion & De Lathauwer 2009.

    >>> import numpy as np
    >>> true = BlockTerm.random((8, 9, 7), (3, 2, 2, 1), like=np.zeros(()), generator=0)
    >>> found = block_term_gevd(true.dense(), true.network, 0)
    >>> bool(np.linalg.norm((found - true).dense()) < 1e-8 * np.linalg.norm(true.dense()))
    True
    """
    pair = _modes(network)
    if pair is None:
        return None
    order = (*pair, *(k for k in range(tensor.ndim) if k not in pair))
    turned = namespace(tensor).permute_dims(tensor, order)
    ranks = tuple(network.size_of[bond(k)] for k in order)
    stream = as_generator(generator, like=tensor)
    found = _best(turned, Terms(network.size_of["T"], ranks), stream)
    if found is None:
        return None
    back = tuple(sorted(range(tensor.ndim), key=lambda k: order[k]))
    return BlockTerm.of_terms([_turned(term, back) for term in found])


def _modes(network: Network) -> tuple[int, int] | None:
    """Two modes of equal rank that hold the ranks of all terms beside one another, the highest rank first."""
    if "T" not in network.size_of or len(network.modes) < 3:
        return None
    sizes = network.size_of
    if any(bond(k) not in sizes for k in range(len(network.modes))):
        return None
    able = [k for k in range(len(network.modes)) if sizes["T"] * sizes[bond(k)] <= sizes[f"m{k}"]]
    pairs = [(i, j) for i in able for j in able if i < j and sizes[bond(i)] == sizes[bond(j)]]
    return max(pairs, key=lambda p: sizes[bond(p[0])], default=None)


def _turned(term: Tucker, order: tuple[int, ...]) -> Tucker:
    """The term with its modes in another order."""
    return Tucker(namespace(term.core).permute_dims(term.core, order), tuple(term.matrices[k] for k in order))


def _best(tensor: Array, terms: Terms, generator: Any) -> list[Tucker] | None:
    """The terms by the pencil with the least error."""
    size = terms.number * terms.ranks[0]
    bases = [leading_left(unfold(tensor, k), size) for k in (0, 1)]
    if any(basis.shape[1] < size or _vanishes(s[:size]) for basis, s in bases):
        return None
    core = mode_dot(mode_dot(tensor, adjoint(bases[0][0]), 0), adjoint(bases[1][0]), 1)
    tries = [_by_pencil(core, terms, generator) for _ in range(PENCILS)]
    found = [t for t in tries if t is not None]
    if not found:
        return None
    best = min(found, key=lambda t: norm(core - BlockTerm.of_terms(t).dense()))
    return [_lifted(term, bases[0][0], bases[1][0]) for term in best]


def _vanishes(values: Array) -> bool:
    xp = namespace(values)
    return number(xp.min(values)) <= 100 * epsilon(values) * number(xp.max(values))


def _lifted(term: Tucker, first: Array, second: Array) -> Tucker:
    left, right, *rest = term.matrices
    return Tucker(term.core, (first @ left, second @ right, *rest))


def _by_pencil(core: Array, terms: Terms, generator: Any) -> list[Tucker] | None:
    """The terms from two random combinations of the slices."""
    xp, size = namespace(core), core.shape[0]
    slices = xp.reshape(core, (size, size, -1))
    try:
        below = xp.linalg.pinv(_combined(slices, generator))
        vectors = eigenbasis(_combined(slices, generator) @ below)
        inverse = xp.linalg.pinv(vectors)
        probes = [inverse @ _combined(slices, generator) @ below @ vectors for _ in range(PROBES)]
    except (UnsupportedError, np.linalg.LinAlgError, torch.linalg.LinAlgError):
        return None
    groups = grouped(distances(probes, prod(terms.ranks[2:]) == 1), terms.ranks[0])
    parts = xp.reshape(inverse @ xp.reshape(core, (size, -1)), tuple(core.shape))
    return [_term(vectors, parts, group, terms.ranks, generator) for group in groups]


def _combined(slices: Array, generator: Any) -> Array:
    """A random combination of the slices."""
    weights = normal((slices.shape[2],), like=slices, generator=generator)
    return slices @ weights


def distances(probes: list[Array], scalar: bool) -> list[list[float]]:
    """How little any two eigenvectors have in common.

    With `scalar` blocks the difference of their eigenvalues in all probes, else minus their coupling.
    """
    xp, total = namespace(*probes), 0 * abs(probes[0])
    for probe in probes:
        size = xp.linalg.vector_norm(probe)
        diagonal = xp.linalg.diagonal(probe)
        apart = xp.abs(diagonal[:, None] - diagonal) if scalar else -(xp.abs(probe) + xp.abs(probe.T))
        total = total + apart / xp.where(size > 0, size, xp.ones_like(size))
    count = probes[0].shape[0]
    return [[number(total[i, j]) for j in range(count)] for i in range(count)]


def grouped(apart: list[list[float]], size: int) -> list[list[int]]:
    """Groups of `size` that are closest to one another, the closest pair first.

    >>> grouped([[0, 9, 1, 9], [9, 0, 9, 2], [1, 9, 0, 9], [9, 2, 9, 0]], 2)
    [[0, 2], [1, 3]]
    """
    left, groups = set(range(len(apart))), []
    while left:
        group = [min(left, key=lambda i: min((apart[i][j] for j in left if j != i), default=0.0))]
        while len(group) < size:
            rest = sorted(left - set(group))
            group.append(min(rest, key=lambda i: min(apart[i][j] for j in group)))
        left -= set(group)
        groups.append(sorted(group))
    return groups


def _term(vectors: Array, parts: Array, group: list[int], ranks: tuple[int, ...], generator: Any) -> Tucker:
    """One term: the columns of its group, times what ST-HOSVD leaves of their share of the tensor."""
    xp = namespace(vectors)
    columns = xp.stack([vectors[:, i] for i in group], axis=1)
    share = xp.stack([parts[i, ...] for i in group], axis=0)
    network = Tucker.skeleton(tuple(share.shape), ranks)
    value = methods["st_hosvd"]()._fit(share, network, generator).value
    return Tucker(value.core, (columns @ value.matrices[0], *value.matrices[1:]))
