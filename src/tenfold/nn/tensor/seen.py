"""A tensor in a format, seen through a layout: the network of its digits, and the way back."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from tenfold.core.layout import Layout
from tenfold.core.network import Axes, Axis, Network, distinct, mode
from tenfold.formats import Format, General

Groups = tuple[Axes, ...]


class Seen(NamedTuple):
    """A format, and how its modes make up the axes of a weight; without a layout its modes are the axes.

    The *digits* of an axis are those of the layout that stand for it: row 7 of "(o0=4 o1=3)" has the digits
    (2, 1).

    >>> import torch
    >>> from tenfold.formats import TensorTrain
    >>> train = TensorTrain.random((8, 6), 2, like=torch.zeros(()))
    >>> x = Seen(train, Layout.parse("(o0=4 o1=3) (i0=2 i1=2) -> (o0 i0) (o1 i1)").bind((12, 4)))
    >>> x.shape, x.groups, x.network.factors
    ((12, 4), (('o0', 'o1'), ('i0', 'i1')), (('o0', 'i0', 'R1'), ('R1', 'o1', 'i1')))
    """

    value: Format
    layout: Layout | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.layout.shape if self.layout else self.value.shape

    @property
    def groups(self) -> Groups:
        """The digits of each axis of the weight."""
        return self.layout.weight if self.layout else tuple((m,) for m in self.value.network.modes)

    @property
    def network(self) -> Network:
        """The network over the digits."""
        network = self.value.network
        return network.refined(self.layout.mode_groups) if self.layout else network

    def factors(self, network: Network) -> list[Tensor]:
        """The factors with their digits apart."""
        return [
            f.reshape(network.extent(axes))
            for f, axes in zip(self.value.factors, network.factors, strict=True)
        ]

    def dense(self) -> Tensor:
        """The weight."""
        tensor: Tensor = self.value.dense()
        return self.layout.to_weight(tensor) if self.layout else tensor

    def apart(self) -> "Seen":
        """The same weight as a general network, every digit a mode of its own, in the weight's order."""
        network = self.network
        return seen(self.factors(network), network.factors, self.groups)

    def permuted(self, order: Sequence[int]) -> "Seen":
        """The axes of the weight in another order; the format stays."""
        layout = self.layout or plain(self.value.network)
        return Seen(self.value, Layout(tuple(layout.weight[k] for k in order), layout.modes, layout.sizes))

    def mode_of(self, axis: int) -> int | None:
        """The number of the mode that an axis is, if it is one by itself."""
        if self.layout is None:
            return axis
        group = self.layout.weight[axis]
        alone = len(group) == 1 and group in self.layout.modes
        return self.layout.modes.index(group) if alone else None

    def resized(self, value: Format) -> "Seen":
        """Another tensor of the same order whose modes, where their size is a new one, are single digits."""
        if self.layout is None:
            return Seen(value)
        sizes = dict(self.layout.sizes)
        for group, n in zip(self.layout.modes, value.shape, strict=True):
            if len(group) == 1:
                sizes[group[0]] = n
        return Seen(value, Layout(self.layout.weight, self.layout.modes, tuple(sizes.items())))

    def matches(self, other: "Seen") -> bool:
        """Whether both see modes of the same sizes in the same way, whatever the names of their axes."""
        return _numbered(self) == _numbered(other)


def plain(network: Network) -> Layout:
    """The layout in which the axes of the weight are the modes."""
    alone = tuple((m,) for m in network.modes)
    return Layout(alone, alone, tuple((m, network.size_of[m]) for m in network.modes))


def seen(arrays: Sequence[Tensor], graph: Sequence[Axes], groups: Groups) -> Seen:
    """The weight whose axes are `groups` of axes of a graph; all other axes are bonds.

    >>> import torch
    >>> x = seen([torch.ones(2, 3), torch.ones(3, 4)], [("a", "r"), ("r", "b")], (("b", "a"),))
    >>> x.shape, x.value.shape, x.dense()[0]
    ((8,), (4, 2), tensor(3.))
    """
    outer = distinct(groups)
    bonds = [a for a in distinct(graph) if a not in outer]
    names: dict[Axis, Axis] = {a: mode(k) for k, a in enumerate(outer)}
    names |= {b: f"R{k}" for k, b in enumerate(bonds)}
    value = General(tuple(arrays), tuple(tuple(names[a] for a in axes) for axes in graph))
    if all(len(g) == 1 for g in groups):
        return Seen(value)
    return Seen(value, _grouped(groups, names, value.network.size_of))


def _grouped(groups: Groups, names: Mapping[Axis, Axis], sizes: Mapping[Axis, int]) -> Layout:
    """The layout that joins the modes of a general network in groups."""
    weight = tuple(tuple(names[a] for a in g) for g in groups)
    outer = distinct(weight)
    return Layout(weight, tuple((a,) for a in outer), tuple((a, sizes[a]) for a in outer))


def _numbered(x: Seen) -> tuple[object, ...]:
    layout = x.layout or plain(x.value.network)
    sizes = dict(layout.sizes)
    number = {a: k for k, a in enumerate(layout.axes)}
    weight = tuple(tuple((number[a], sizes[a]) for a in g) for g in layout.weight)
    return weight, tuple(tuple(number[a] for a in g) for g in layout.modes)
