"""A tensor times a vector along a new mode, kept in its format: X'[..., t, ...] = c[t] X[...].

What a new mode needs is read off the graph of the format. In CP, a train and a ring the new factor is a
junction on a bond: it passes the bond's rank on, times c[t]. In Tucker and block terms the core gets an axis.
In a tree the new leaf joins its neighbour, and their node is a junction. A format without room for one more
mode, such as a matrix of low rank, gets it inside of a mode that it has (`enlarged`).
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tenfold.core.errors import ShapeError, UnsupportedError
from tenfold.core.network import Axes, Axis, identity, mode, shared_bonds
from tenfold.formats import Format
from tenfold.formats.dimension_tree import Tree
from tenfold.formats.graphs import graph_for

NEW: Axis = "m"
"""The new mode, while the others keep their numbers."""
Graph = tuple[Axes, ...]
Found = tuple[list[Any], int | None]
"""The slots of the new format, and the number of the one that is new."""


@dataclass(frozen=True)
class Grown:
    """A tensor with a new mode, where that stands, and which of its factors is new (None: none is)."""

    value: Format
    mode: int
    factor: int | None


def enlarged(value: Format, k: int, inner: int, vector: Tensor) -> Format:
    """The tensor with mode k split into (outer, inner) and c put between: mode k becomes (outer, t, inner).

    >>> from tenfold.formats import LowRank
    >>> x = LowRank(torch.ones(2, 1), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    >>> enlarged(x, 1, 2, torch.tensor([0.0, 1.0])).right
    tensor([[0., 0., 1., 2., 0., 0., 3., 4.]])
    """
    holders = [n for n, axes in enumerate(value.network.factors) if mode(k) in axes]
    if len(holders) != 1:
        raise UnsupportedError(f"mode {k} is carried by {len(holders)} factors.", "Choose another layout.")
    (at,) = holders
    factor, axis = value.factors[at], value.network.factors[at].index(mode(k))
    split = factor.unflatten(axis, (-1, 1, inner))
    shape = [-1 if d == axis + 1 else 1 for d in range(split.ndim)]
    wide = (split * vector.to(factor).view(shape)).flatten(axis, axis + 2)
    arrays = iter([wide if n == at else f for n, f in enumerate(value.factors)])
    return value.with_factors([None if s is None else next(arrays) for s in value.slots])


def with_mode(value: Format, near: int, vector: Tensor) -> Grown | None:
    """The tensor with a mode of its own for c, next to mode `near` if it can be; None if there is no room.

    >>> from tenfold.formats import CP
    >>> x = CP((torch.ones(4, 2), torch.ones(3, 2)))
    >>> with_mode(x, 1, torch.tensor([0.0, 1.0, 0.0])).value.matrices[1]
    tensor([[0., 0.],
            [1., 1.],
            [0., 0.]])
    """
    order = len(value.shape)
    places = [near, near + 1, *(k for k in range(order + 1) if k not in (near, near + 1))]
    graphs = [(k, *found) for k in places if (found := _graph_with(value, near, k)) is not None]
    for build in (_junction, _whole):
        for k, graph, static in graphs:
            if (made := build(value, graph, vector.to(value.factors[0]))) is not None:
                slots, new = made
                count = None if new is None else sum(s is not None for s in slots[:new])
                return Grown(type(value).from_factors(slots, **static), k, count)
    return None


def _graph_with(value: Format, near: int, k: int) -> tuple[Graph, dict[str, Any]] | None:
    """The graph of the format with one more mode, number k, which is called NEW, and the options for it."""
    order, static = len(value.shape), dict(value.static)
    if "tree" in static:
        static["tree"] = _joined(static["tree"], near, k)
    try:
        graph = graph_for(type(value), order + 1, static)
    except ShapeError:
        return None
    names = {mode(j): NEW if j == k else mode(j - (j > k)) for j in range(order + 1)}
    return tuple(tuple(names.get(a, a) for a in axes) for axes in graph), static


def _joined(tree: Tree, near: int, k: int) -> Tree:
    """The dimension tree with leaf k joined to leaf `near`; leaves from k on count one more.

    >>> _joined((0, (1, 2)), 2, 2)
    (0, (1, (2, 3)))
    """
    if isinstance(tree, int):
        own = tree + (tree >= k)
        return own if tree != near else (min(own, k), max(own, k))
    return tuple(_joined(child, near, k) for child in tree)


def _junction(value: Format, graph: Graph, vector: Tensor) -> Found | None:
    """The new mode's factor between factors that are as they were."""
    at = _holder(graph)
    return None if at is None else _passing(value, graph, at, vector)


def _whole(value: Format, graph: Graph, vector: Tensor) -> Found | None:
    """The new mode in the place of the bond to its matrix, which is left out: it ends in a core."""
    at = _holder(graph)
    pair = None if at is None else identity(graph[at], shared_bonds(graph))
    if at is None or pair is None:
        return None
    rest = tuple(tuple(NEW if a == pair[1] else a for a in axes) for axes in _without(graph, at))
    core = _holder(rest)
    if core is None:
        return None
    found = _extended(value, rest, core, vector) or _passing(value, rest, core, vector)
    if found is None:
        return None
    slots, new = found
    return [*slots[:at], None, *slots[at:]], None if new is None else new + (new >= at)


def _passing(value: Format, graph: Graph, at: int, vector: Tensor) -> Found | None:
    """The old factors, and at slot `at` a new one, which passes a bond's rank on, times the vector."""
    bonds = [a for a in graph[at] if a != NEW]
    names = _renaming(_without(graph, at), value.graph)
    ends = {names.get(b) for b in bonds} if names else set()
    if (
        names is None
        or None in ends
        or len(ends) != 1
        or len(set(names.values())) != len(names) + 1 - len(bonds)
    ):
        return None
    size = _sizes(value)[names[bonds[0]]]
    passed = torch.eye(size).to(vector) if len(bonds) == 2 else vector.new_ones(size)
    slots = list(value.slots)
    return [*slots[:at], _times(passed, graph[at].index(NEW), vector), *slots[at:]], at


def _extended(value: Format, graph: Graph, at: int, vector: Tensor) -> Found | None:
    """The old factors, of which number `at` has the new axis."""
    axes = tuple(a for a in graph[at] if a != NEW)
    names = _renaming((*graph[:at], axes, *graph[at + 1 :]), value.graph)
    if names is None or len(set(names.values())) != len(names):
        return None
    slots: list[Any] = list(value.slots)
    return [*slots[:at], _times(slots[at], graph[at].index(NEW), vector), *slots[at + 1 :]], None


def _times(factor: Tensor, axis: int, vector: Tensor) -> Tensor:
    """The factor times the vector along a new axis."""
    shape = [-1 if d == axis else 1 for d in range(factor.ndim + 1)]
    return factor.unsqueeze(axis) * vector.view(shape)


def _renaming(new: Graph, old: Graph) -> dict[Axis, Axis] | None:
    """What the axes of one graph are called in another; None if the graphs differ in more than names."""
    if [len(axes) for axes in new] != [len(axes) for axes in old]:
        return None
    names: dict[Axis, Axis] = {}
    for a, b in zip(chain.from_iterable(new), chain.from_iterable(old), strict=True):
        same_kind = a == b or not (a.startswith("m") or b.startswith("m"))
        if not same_kind or names.setdefault(a, b) != b:
            return None
    return names


def _holder(graph: Graph) -> int | None:
    """The number of the factor with the new mode, if there is but one."""
    found = [n for n, axes in enumerate(graph) if NEW in axes]
    return found[0] if len(found) == 1 else None


def _without(graph: Graph, at: int) -> Graph:
    return graph[:at] + graph[at + 1 :]


def _sizes(value: Format) -> dict[Axis, int]:
    """Sizes of the axes of all slots; the bond to a matrix that is left out is as large as its mode."""
    pairs = zip(value.graph, value.slots, strict=True)
    return {a: n for axes, s in pairs if s is not None for a, n in zip(axes, s.shape, strict=True)}
