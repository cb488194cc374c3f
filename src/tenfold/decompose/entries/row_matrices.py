"""Factors of a network as matrices: a row for each combination of modes, a column for each of bonds."""

from collections.abc import Sequence

from tenfold.core.arrays import Array, namespace
from tenfold.core.network import Axes, Network
from tenfold.decompose.local_problem import Point


def modes_in(network: Network, axes: Axes) -> Axes:
    """The modes among the axes of a factor."""
    return tuple(a for a in axes if a in network.modes)


def bonds_in(network: Network, axes: Axes) -> Axes:
    """The axes of a factor that are no modes."""
    return tuple(a for a in axes if a not in network.modes)


def flat(network: Network, factors: Sequence[Array]) -> Point:
    """Factors as matrices of rows; one row for a factor without modes.

    >>> import numpy as np
    >>> network = Network((("i", "b"), ("b", "j")), ("i", "j"), (("i", 4), ("b", 2), ("j", 3)))
    >>> [z.shape for z in flat(network, (np.ones((4, 2)), np.ones((2, 3))))]
    [(4, 2), (3, 2)]
    """
    return tuple(_flat(network, f, axes) for f, axes in zip(factors, network.factors, strict=True))


def _flat(network: Network, factor: Array, axes: Axes) -> Array:
    xp, modes, bonds = namespace(factor), modes_in(network, axes), bonds_in(network, axes)
    ordered = xp.permute_dims(factor, tuple(axes.index(a) for a in (*modes, *bonds)))
    return xp.reshape(ordered, (network.product(modes), network.product(bonds)))


def folded(network: Network, point: Point) -> tuple[Array, ...]:
    """The way back."""
    return tuple(_folded(network, z, axes) for z, axes in zip(point, network.factors, strict=True))


def _folded(network: Network, matrix: Array, axes: Axes) -> Array:
    xp, order = namespace(matrix), (*modes_in(network, axes), *bonds_in(network, axes))
    tensor = xp.reshape(matrix, network.extent(order))
    return xp.permute_dims(tensor, tuple(order.index(a) for a in axes))
