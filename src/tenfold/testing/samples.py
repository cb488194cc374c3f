"""Tensors on which the laws of formats are checked, and what they are as arrays of NumPy."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tenfold.core.arrays import Array
from tenfold.core.errors import RankError, ShapeError
from tenfold.core.network import distinct, identity, shared_bonds
from tenfold.formats import Format, Ranks, formats
from tenfold.formats.graphs import graph_for
from tenfold.testing.compare import to_numpy

SHAPES = {1: (5,), 2: (5, 4), 3: (5, 4, 6), 4: (3, 4, 2, 5)}


def holds(cls: type[Format], order: int, **static: Any) -> bool:
    """Whether the format holds tensors of this order."""
    try:
        cls.skeleton(SHAPES[order], 1, **static)
    except ShapeError:
        return False
    return True


def samples(cls: type[Format], orders: Sequence[int], like: Array, **static: Any) -> Iterator[Format]:
    """Random tensors of the format: low ranks, clipped ones, and each mode whole that can be."""
    for order in orders:
        shape = SHAPES[order]
        choices: list[Ranks] = [2, 3, *whole_modes(cls, shape, **static)]
        for ranks in choices:
            yield cls.random(shape, ranks, like=like, generator=order, **static)


def whole_modes(cls: type[Format], shape: Sequence[int], **static: Any) -> Iterator[Mapping[str, int]]:
    """Ranks that leave modes whole, as far as the format allows it: one, and all that can be."""
    network = cls.skeleton(shape, 2, **static)
    graph = graph_for(cls, len(shape), static)
    able = [p[1] for f in graph if (p := identity(f, shared_bonds(graph))) is not None]
    for left_out in [*itertools.combinations(able, 1), tuple(able)]:
        ranks = {b: 2 for b in network.bonds if b not in left_out}
        try:
            cls.skeleton(shape, ranks, **static)
        except RankError:
            continue
        yield ranks


def naive(value: Format) -> np.ndarray:
    """The represented tensor by one einsum over the graph."""
    network = value.network
    number = {a: k for k, a in enumerate(distinct((network.modes, *network.factors)))}
    operands = [
        x
        for f, axes in zip(value.factors, network.factors, strict=True)
        for x in (to_numpy(f), [number[a] for a in axes])
    ]
    return np.asarray(np.einsum(*operands, [number[m] for m in network.modes], optimize=True))


def partners(value: Format) -> Iterator[Format]:
    """One tensor of every registered format that has the shape of `value`."""
    for known in formats:
        try:
            yield formats[known].random(value.shape, 2, like=value.factors[0], generator=7)
        except ShapeError:
            continue


def others(value: Format) -> Iterator[Format]:
    """Tensors of the same format and shape of other ranks: with all modes compressed, and others whole."""
    static, like = value.static, value.factors[0]
    yield type(value).random(value.shape, 1, like=like, generator=5, **static)
    yield type(value).random(value.shape, 3, like=like, generator=6, **static)
    *_, last = [None, *whole_modes(type(value), value.shape, **static)]
    if last is not None:
        yield type(value).random(value.shape, last, like=like, generator=7, **static)


def name(value: Format) -> str:
    """The format's name for messages."""
    return type(value).__name__
