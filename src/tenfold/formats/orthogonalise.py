"""Orthogonal factors: every factor of a tree network but one made an isometry towards that one."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from tenfold.algebra import mode_dot
from tenfold.core.arrays import (
    Array,
    cast_like,
    check_finite,
    constant,
    is_complex,
    is_floating,
    is_traced,
    namespace,
    to_compute,
)
from tenfold.core.errors import OptionError
from tenfold.core.linalg import orthonormalise
from tenfold.core.network import Axis, Network
from tenfold.formats.base import Format
from tenfold.formats.branches import Branch, Link, branches

F = TypeVar("F", bound=Format)


def orthogonalised(value: F, centre: int = 0) -> F:
    """The same tensor with every factor but the `centre` an isometry, so that the centre holds the norm.

    `centre` counts in `value.factors`, from the end if negative. Unfolded into its bond towards the centre
    and its other axes, every other factor Q has QᴴQ = 1. QR factorisations from the leaves to the centre;
    where a factor has fewer other entries than its bond is wide, the bond becomes as narrow. Works for every
    network that is a tree: low rank, Tucker, train, hierarchical Tucker, general ones. Computed in float32
    at least.

    The norm may be too large, or too small, to be squared in the dtype (ones of order 400). Then it is
    spread over all factors, which are isometries but for a scalar.

    Cost: O(n r³) for a factor of a train, O(r⁴) for one of a binary tree.

    Raises:
        UnsupportedError: if the network has cycles, or bonds that more than two factors share.
        OptionError: if there is no such factor.
        WeightError: if a factor holds NaN or infinite entries.

    Source: Oseledets, SIAM J. Sci. Comput. 33(5), 2011, section 3; Grasedyck, SIAM J. Matrix Anal. 31(4),
    2010, section 4.

    >>> import numpy as np
    >>> from tenfold.formats import TensorTrain
    >>> x = TensorTrain.random((4, 5, 6), 3, like=np.zeros(()), generator=0)
    >>> y = orthogonalised(x, centre=-1)
    >>> np.allclose(y.cores[0].T @ y.cores[0], np.eye(3)), np.allclose(y.dense(), x.dense())
    (True, True)
    >>> bool(abs(np.linalg.norm(y.cores[2]) - x.norm()) < 1e-10)
    True
    """
    network = value.network
    if not -len(value.factors) <= centre < len(value.factors):
        raise OptionError(
            f"the centre is factor {centre}, but there are {len(value.factors)} factors.",
            f"Choose from 0 to {len(value.factors) - 1}.",
        )
    trees = branches(network, centre % len(value.factors))
    arrays, log = swept(network, computed(value), trees)
    return refilled(value, scaled(arrays, trees[0].root, log, limit_of(value)))


def swept(network: Network, factors: Sequence[Array], trees: Sequence[Branch]) -> tuple[list[Array], float]:
    """Leaves to roots: all factors isometries but the roots, which have norm 1; and the norm's logarithm.

    If the tensor is zero, all roots are zero, and the logarithm is of no use.
    """
    arrays, log = list(factors), 0.0
    for tree in trees:
        for link in reversed(tree.links):
            arrays[link.child], size = unit(arrays[link.child])
            log += size
            push(arrays, network, link)
        arrays[tree.root], size = unit(arrays[tree.root])
        log += size
    if is_traced(log):
        there = log > -math.inf
        for tree in trees:
            arrays[tree.root] = arrays[tree.root] * there
    elif log == -math.inf:
        for tree in trees:
            arrays[tree.root] = 0 * arrays[tree.root]
    return arrays, log


def push(arrays: list[Array], network: Network, link: Link, up: bool = True) -> None:
    """Make the child of a link orthonormal, and multiply the rest of it into the parent; or the reverse."""
    source, target = (link.child, link.parent) if up else (link.parent, link.child)
    matrix = unfolded(arrays[source], axis_of(network, source, link.bond))
    basis, coordinates = orthonormalise(matrix)
    arrays[source] = folded(basis, arrays[source], axis_of(network, source, link.bond))
    arrays[target] = mode_dot(arrays[target], coordinates, axis_of(network, target, link.bond))


def axis_of(network: Network, factor: int, bond: Axis) -> int:
    """Where a factor has a bond."""
    return network.factors[factor].index(bond)


def unfolded(array: Array, axis: int) -> Array:
    """The matrix of all other axes by this one."""
    xp = namespace(array)
    turned = xp.moveaxis(array, axis, -1)
    return xp.reshape(turned, (math.prod(turned.shape[:-1]), array.shape[axis]))


def folded(matrix: Array, like: Array, axis: int) -> Array:
    """The way back from `unfolded`, where `axis` may have got another size."""
    xp = namespace(matrix)
    others = tuple(n for k, n in enumerate(like.shape) if k != axis)
    return xp.moveaxis(xp.reshape(matrix, (*others, matrix.shape[1])), -1, axis)


def unit(array: Array) -> tuple[Array, float]:
    """`array` divided by its norm, and the norm's logarithm; nothing is squared that could overflow.

    A zero array stays, and the logarithm is minus infinity.

    >>> import numpy as np
    >>> unit(np.array([3e200, 4e200]))[0]
    array([0.6, 0.8])
    """
    xp = namespace(array)
    largest = plain(xp.max(xp.abs(array))) if math.prod(array.shape) else 0.0
    if is_traced(largest):
        return _traced_unit(array, largest)
    if largest == 0:
        return array, -math.inf
    array = array / largest
    length = plain(xp.linalg.vector_norm(array))
    return array / length, math.log(largest) + math.log(length)


def _traced_unit(array: Array, largest: Array) -> tuple[Array, Array]:
    """`unit` without knowing whether the array is zero."""
    xp = namespace(array)
    there = largest > 0
    array = array / xp.where(there, largest, 1.0)
    length = xp.where(there, plain(xp.linalg.vector_norm(array)), 1.0)
    return array / length, xp.where(there, xp.log(largest) + xp.log(length), -math.inf)


def plain(x: Array) -> float:
    """An array without axes as a Python float that no gradient flows through; a traced one stays an array."""
    if is_traced(x):
        held: float = constant(x)
        return held
    return float(x.detach() if hasattr(x, "detach") else x)


def real(x: Array) -> float:
    """The real part of an array without axes, as a Python float that no gradient flows through."""
    return plain(namespace(x).real(x) if is_complex(x) else x)


def scaled(factors: Sequence[Array], centre: int, log: float, limit: float) -> list[Array]:
    """The factors times exp(log): the centre alone, or each its share where that is beyond exp(limit)."""
    if is_traced(log):
        return _traced_scaled(factors, centre, log, limit)
    if log == -math.inf:
        return list(factors)
    if abs(log) <= limit:
        return [f * math.exp(log) if k == centre else f for k, f in enumerate(factors)]
    return [f * math.exp(log / len(factors)) for f in factors]


def _traced_scaled(factors: Sequence[Array], centre: int, log: Array, limit: float) -> list[Array]:
    """`scaled` without knowing how large the logarithm is."""
    xp = namespace(log)
    log = xp.where(log > -math.inf, log, 0.0)
    even, alone = log / len(factors), xp.abs(log) <= limit
    shares = (xp.where(alone, log if k == centre else 0.0, even) for k in range(len(factors)))
    return [f * xp.exp(share) for f, share in zip(factors, shares, strict=True)]


def limit_of(value: Format) -> float:
    """The largest logarithm of a norm whose square has room in the dtype."""
    xp, dtype = namespace(*value.factors), value.dtype
    known = dtype if is_floating(value.factors[0]) else to_compute(value.factors[0]).dtype
    return 0.45 * math.log(float(xp.finfo(known).max))


def computed(value: Format) -> list[Array]:
    """The factors in the dtype to calculate in, checked."""
    for k, f in enumerate(value.factors):
        check_finite(f, f"factor {k}")
    return [to_compute(f) for f in value.factors]


def refilled(value: F, factors: Sequence[Any]) -> F:
    """The format over other factors, in its own dtype."""
    feed = iter(factors)
    return value.with_factors([None if s is None else cast_like(next(feed), s) for s in value.slots])
