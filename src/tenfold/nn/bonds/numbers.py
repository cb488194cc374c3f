"""Numbers on the ranks of a weight's bonds: the mechanism that gates and dropout share."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from tenfold.core.network import Axis
from tenfold.core.program import Gather
from tenfold.formats import Format
from tenfold.nn.tensor.factorized import FactorizedTensor

Ints = tuple[int, ...]


class Place(NamedTuple):
    """Where the numbers of a bond go: into this factor, along one axis of the array that is stored.

    `split` and `grown` are the shapes in which the numbers, one for each rank, are repeated for the other
    axes of the network that lie in the same axis of the array; `along` is the array's, 1 elsewhere.
    """

    factor: int
    split: Ints
    grown: Ints
    along: Ints


class BondTensor(FactorizedTensor):
    """A tensor with something that acts on the ranks of its bonds: gates, dropout, or both.

    It is put on a tensor, and taken off, in place: the tensor changes its class, but remains the same object
    with the same parameters of the same names. So optimizers, tied weights and states know it as before.
    Numbers of a bond are multiplied into one factor on it, the smallest: a bond that several factors share
    gets them once.
    """

    order: ClassVar[int]
    """Of several that act on a tensor, the one of the highest order comes last."""
    base: ClassVar[type[FactorizedTensor]] = FactorizedTensor
    acting: ClassVar[tuple[type["BondTensor"], ...]] = ()
    places: dict[Axis, Place]

    @property
    def plain(self) -> FactorizedTensor:
        """The tensor without anything that acts on its bonds: another view of the same parameters."""
        return _seen_as(self.base, self)

    def beneath(self, action: type["BondTensor"]) -> FactorizedTensor:
        """The tensor with only what acts on it before `action`: another view of the same parameters."""
        left = tuple(a for a in actions_of(type(self)) if a.order < action.order)
        return _seen_as(joined(self.base, left), self)

    def passed(self, factors: list[Tensor], numbers: Mapping[Axis, Tensor]) -> list[Tensor]:
        """The factors as they are stored, with a number multiplied into each rank of some bonds."""
        for bond, each in numbers.items():
            k, split, grown, along = self.places[bond]
            factors[k] = factors[k] * each.view(split).expand(grown).reshape(along)
        return factors

    def set_(self, value: Format) -> None:
        """Put new factors of the same shapes into the parameters, without recording gradients."""
        self.plain.set_(value)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.plain._load_from_state_dict(*args)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _blank, (self.base, actions_of(type(self))), vars(self)


def put_on(action: type[BondTensor], tensor: FactorizedTensor) -> None:
    """Let `action` act on the bonds of `tensor`, in place."""
    kind = type(tensor)
    base = kind.base if issubclass(kind, BondTensor) else kind
    actions = sorted({*actions_of(kind), action}, key=lambda a: a.order)
    tensor.places = places(tensor)  # type: ignore[assignment]
    tensor.__class__ = joined(base, tuple(actions))


def take_off(action: type[BondTensor], tensor: BondTensor) -> None:
    """End what `put_on` began."""
    left = tuple(a for a in actions_of(type(tensor)) if a is not action)
    tensor.__class__ = joined(tensor.base, left)  # type: ignore[assignment]
    if not left:
        del tensor.places


@lru_cache(maxsize=256)
def joined(base: type[FactorizedTensor], actions: tuple[type[BondTensor], ...]) -> type[FactorizedTensor]:
    """The class of tensors of type `base` on which these act, the first of them first."""
    if not actions:
        return base
    if base is FactorizedTensor and len(actions) == 1:
        return actions[0]
    name = "".join(a.__name__.removesuffix("Tensor") for a in reversed(actions)) + base.__name__
    return type(name, (*reversed(actions), base), {"base": base, "acting": actions})


def actions_of(kind: type[FactorizedTensor]) -> tuple[type[BondTensor], ...]:
    """What acts on the tensors of a class."""
    if not issubclass(kind, BondTensor):
        return ()
    return kind.acting or (kind,)


def _blank(base: type[FactorizedTensor], actions: tuple[type[BondTensor], ...]) -> FactorizedTensor:
    """An empty tensor, for a copy to fill."""
    return object.__new__(joined(base, actions))


def _seen_as(kind: type[FactorizedTensor], tensor: FactorizedTensor) -> FactorizedTensor:
    """Another view of a tensor: the same state, with the methods of `kind`."""
    view = object.__new__(kind)
    object.__setattr__(view, "__dict__", vars(tensor))
    return view


def places(tensor: FactorizedTensor) -> dict[Axis, Place]:
    """Bond -> where its numbers go."""
    return {b: _place(tensor, b) for b in tensor.ranks}


def _place(tensor: FactorizedTensor, bond: Axis) -> Place:
    network, k = tensor.network, _carrier(tensor, bond)
    groups = tensor.stored[k].groups
    at = next(n for n, group in enumerate(groups) if bond in group)
    grown = network.extent(groups[at])
    split = tuple(network.size_of[bond] if a == bond else 1 for a in groups[at])
    return Place(k, split, grown, tuple(math.prod(grown) if n == at else 1 for n in range(len(groups))))


def _carrier(tensor: FactorizedTensor, bond: Axis) -> int:
    """The smallest factor on the bond; one of which rows are looked up only where there is no other.

    A table that is multiplied is no parameter any more, and so could not have sparse gradients.
    """
    network = tensor.network
    steps = tensor.program.steps if tensor.program is not None else ()
    tables = {step.weight for step in steps if isinstance(step, Gather)}
    holders = [k for k, axes in enumerate(network.factors) if bond in axes]
    return min(holders, key=lambda k: (k in tables, network.product(network.factors[k])))
