"""Layers whose weights are slices of one tensor: how a checkpoint describes them, and makes them again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from tenfold.compress.opening import open_
from tenfold.core.errors import CheckpointError, UnsupportedError
from tenfold.core.layout import Layout
from tenfold.core.network import Axes, Axis, mode
from tenfold.formats import General
from tenfold.nn import FactorizedLayer, replacement
from tenfold.nn.joint import share
from tenfold.nn.tensor.shared_factors import SharingTensor


@dataclass(frozen=True)
class Slice:
    """One layer: the axes of its factors with the sizes of its bonds, the numbers of those factors that are
    shared, and the input for which its steps are planned."""

    layout: str
    factors: tuple[Axes, ...]
    ranks: Mapping[Axis, int]
    shared: tuple[int, ...]
    example: tuple[int, ...]

    @staticmethod
    def of(layer: FactorizedLayer) -> "Slice":
        """The layer as it is now."""
        weight = layer.weight
        assert isinstance(weight, SharingTensor)
        shared = [k for k, name in enumerate(weight.names) if hasattr(weight.shared, name)]
        joined = weight.static["joined"]
        return Slice(str(layer.layout), joined, dict(weight.ranks), tuple(shared), tuple(layer.planned()))

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Slice":
        """Inverse of `asdict`, checked: a damaged file raises a TypeError, KeyError or ValueError."""
        factors = tuple(tuple(map(_text, axes)) for axes in data["factors"])
        shared = tuple(map(_whole, data["shared"]))
        if any(k >= len(factors) for k in shared):
            raise ValueError(f"factor {max(shared)} is shared, of {len(factors)}")
        ranks = {_text(bond): _whole(n) for bond, n in dict(data["ranks"]).items()}
        return Slice(_text(data["layout"]), factors, ranks, shared, tuple(map(_whole, data["example"])))

    def empty(self, dense: nn.Module, name: str) -> FactorizedLayer:
        """The layer in the place of `dense`, its factors uninitialised and its own.

        Raises:
            CheckpointError, LayoutError, ShapeError: if the slice does not fit the weight.
        """
        kind, weight = replacement(dense), dense.get_parameter("weight")
        layout = Layout.parse(self.layout).bind(weight.shape, name)
        sizes = dict(self.ranks) | {mode(k): n for k, n in enumerate(layout.mode_shape)}
        if {a for axes in self.factors for a in axes} != set(sizes):
            raise CheckpointError(
                f"the factors of '{name}' have the axes {self.factors}, its weight and ranks {list(sizes)}.",
                "The description may be damaged; write the checkpoint anew.",
            )
        shapes = [[sizes[a] for a in axes] for axes in self.factors]
        arrays = [torch.empty(shape, dtype=weight.dtype, device=weight.device) for shape in shapes]
        made = kind.from_dense(dense, General(tuple(arrays), self.factors), layout, self.example)
        made.weight.requires_grad_(weight.requires_grad)
        return made


@dataclass(frozen=True)
class Family:
    """The layers that share factors, by name; `format` is that of the tensor behind them.

    Names in `same` are second places of a layer, those in `tied` are layers with the weight of another.
    """

    format: str
    layers: Mapping[str, Slice]
    same: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Family":
        """Inverse of `asdict`, checked as `Slice.from_dict`."""
        layers = {_text(name): Slice.from_dict(one) for name, one in dict(data["layers"]).items()}
        tied = {_text(name): _text(first) for name, first in dict(data["tied"]).items()}
        same = {_text(name): _text(first) for name, first in dict(data["same"]).items()}
        lost = [*({*tied.values()} - {*layers}), *({*same.values()} - {*layers, *tied})]
        if lost or not layers:
            raise ValueError(f"{lost or 'no layers'} described")
        return Family(_text(data["format"]), layers, same, tied)

    @property
    def names(self) -> list[str]:
        """All places of all layers."""
        return [*self.layers, *self.tied, *self.same]


def families_of(model: nn.Module) -> tuple[Family, ...]:
    """The joint layers of a model, whichever of a family are in it.

    >>> from tenfold.nn import joint_random
    >>> layers = joint_random([nn.Linear(6, 4) for _ in range(3)], 2, "cp", "o i -> o i")
    >>> [family] = families_of(nn.Sequential(nn.ReLU(), *layers[1:]))
    >>> family.format, list(family.layers), family.layers["1"].factors
    ('cp', ['1', '2'], (('R',), ('m0', 'R'), ('m1', 'R')))
    """
    found: dict[int, Family] = {}
    first_layer: dict[int, str] = {}
    first_weight: dict[int, str] = {}
    for name, layer in joint_layers(model):
        weight = layer.weight
        assert isinstance(weight, SharingTensor)
        family = found.setdefault(id(weight.shared), Family(weight.shared.kind, {}))
        if id(layer) in first_layer:
            family.same[name] = first_layer[id(layer)]  # type: ignore[index]
        elif id(weight) in first_weight:
            family.tied[name] = first_weight[id(weight)]  # type: ignore[index]
        else:
            family.layers[name] = Slice.of(layer)  # type: ignore[index]
        first_layer.setdefault(id(layer), name)
        first_weight.setdefault(id(weight), name)
    return tuple(found.values())


def joint_layers(model: nn.Module) -> Iterator[tuple[str, FactorizedLayer]]:
    """The layers with shared factors, under all their names."""
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, FactorizedLayer) and isinstance(module.weight, SharingTensor):
            yield name, module


def join_(model: nn.Module, families: Sequence[Family]) -> None:
    """Put joint layers in the place of dense ones, their factors uninitialised, for a state dict to fill.

    Raises:
        CheckpointError, LayoutError, ShapeError, UnsupportedError: if they do not fit the model.
    """
    names = [name for family in families for name in family.names]
    open_(model, names)
    modules = dict(model.named_modules(remove_duplicate=False))
    if "" in names:
        raise UnsupportedError("the model is a single layer.", "Wrap it: nn.Sequential(layer).")
    if lost := next((name for name in names if name not in modules), None):
        raise CheckpointError(f"the model has no layer '{lost}'.", "Check the model.")
    made: dict[str, FactorizedLayer] = {}
    for family in families:
        made |= _layers_of(family, modules)
    for name, layer in made.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)


def _layers_of(family: Family, modules: Mapping[str, nn.Module]) -> dict[str, FactorizedLayer]:
    slices = {**family.layers, **{name: family.layers[first] for name, first in family.tied.items()}}
    made = {name: one.empty(modules[name], name) for name, one in slices.items()}
    common = {tuple(made[name].weight.names[k] for k in one.shared) for name, one in slices.items()}
    if len(common) > 1:
        raise CheckpointError(
            f"the layers {', '.join(made)} share the factors {sorted(common)}, not all the same.",
            "The description may be damaged; write the checkpoint anew.",
        )
    share(list(made.values()), family.format, common.pop())
    for name, first in family.tied.items():
        made[name].weight = made[first].weight
    return made | {name: made[first] for name, first in family.same.items()}


def as_data(families: Sequence[Family]) -> list[dict[str, Any]]:
    """JSON-able form."""
    return [asdict(family) for family in families]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is no whole number")
    return value
