"""What factorized layers share: the roles of a weight's axes, and the table of the layers they replace."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from tenfold.core.errors import LayoutError, UnsupportedError
from tenfold.core.layout import Layout
from tenfold.core.network import Axes, Axis
from tenfold.core.program import Program
from tenfold.formats import Format, Ranks
from tenfold.nn.tensor.factorized import FactorizedTensor


class Role(Enum):
    """What a layer does with an axis of its weight."""

    OUT = "free"
    IN = "contracted"
    SPATIAL = "convolved"
    INDEX = "gathered"
    GROUP = "shared with the output"


ROLES = {
    "g": Role.GROUP,
    "o": Role.OUT,
    "i": Role.IN,
    "d": Role.SPATIAL,
    "h": Role.SPATIAL,
    "w": Role.SPATIAL,
    "v": Role.INDEX,
}
"""The letter with which the name of an axis begins says its role."""


def role(axis: Axis) -> Role:
    """Role of an axis such as "o", "i0", "h"; raises LayoutError if its letter has none."""
    stem = axis.rstrip("0123456789")
    if stem not in ROLES:
        raise LayoutError(f'axis "{axis}" has no role.', f"Begin its name with one of {', '.join(ROLES)}.")
    return ROLES[stem]


class Fitted(Protocol):
    """What a method returns: `value` is the format."""

    @property
    def value(self) -> Any: ...


Decompose = Callable[..., Fitted]
"""A decomposition: `method(tensor, ranks)`, for example `HOOI()`."""


class FactorizedLayer(nn.Module, ABC):
    """A layer whose weight is a FactorizedTensor and whose forward pass is a program."""

    weight: FactorizedTensor
    bias: nn.Parameter | None
    program: Program
    layout: Layout

    @staticmethod
    @abstractmethod
    def pattern(dense: nn.Module) -> tuple[Axes, ...]:
        """The axes of the dense layer's weight, one group for each axis of the array."""

    @classmethod
    @abstractmethod
    def from_dense(
        cls, dense: nn.Module, value: Format, layout: Layout, example: Sequence[int] | None
    ) -> Self:
        """The layer with the settings and the bias of `dense` and the weight `value`, seen through `layout`.

        `example` is the shape of an input, for which the order of the steps is planned.
        """

    @abstractmethod
    def to_dense(self) -> nn.Module:
        """The dense layer that computes the same."""

    @abstractmethod
    def planned(self) -> tuple[int, ...]:
        """Shape of the input for which the steps were planned: what `from_dense` takes as `example`."""

    @classmethod
    def bound(cls, dense: nn.Module, layout: str) -> Layout:
        """The layout with all sizes, for the weight of `dense`; raises LayoutError if it does not fit."""
        return Layout.parse(layout).bind(dense.get_parameter("weight").shape, type(dense).__name__)

    @classmethod
    def tensor_of(cls, dense: nn.Module, layout: Layout) -> Tensor:
        """The weight of `dense` as the tensor that is factored."""
        tensor: Tensor = layout.to_modes(dense.get_parameter("weight").detach())
        return tensor

    @classmethod
    def refusal(cls, dense: nn.Module, layout: Layout) -> str:
        """Why a layer in this layout cannot have the settings of `dense`; empty if it can."""
        return ""

    def dense_weight(self) -> Tensor:
        """The weight of `to_dense()`, differentiable in the factors."""
        return self.weight.dense()

    def explain(self) -> str:
        """The steps of the forward pass with their shapes and FLOPs."""
        return self.program.explain()

    @classmethod
    def decomposed(
        cls,
        dense: nn.Module,
        method: Decompose,
        ranks: Ranks | None,
        layout: str,
        example: Sequence[int] | None = None,
    ) -> Self:
        """The layer whose weight `method` fits to that of `dense`, in float32 at least; trained if it is."""
        bound, dtype = cls.bound(dense, layout), dense.get_parameter("weight").dtype
        value = method(cls.tensor_of(dense, bound), ranks).value
        made = cls.from_dense(dense, value.map(lambda f: f.to(dtype)), bound, example)
        made.weight.requires_grad_(dense.get_parameter("weight").requires_grad)
        return made


REPLACEMENTS: dict[type[nn.Module], type[FactorizedLayer]] = {}
"""Dense layer type -> the factorized layer that takes its place."""


def replaces(*dense: type[nn.Module]) -> Callable[[type[FactorizedLayer]], type[FactorizedLayer]]:
    """Class decorator: the layer takes the place of these dense types."""

    def add(cls: type[FactorizedLayer]) -> type[FactorizedLayer]:
        REPLACEMENTS.update(dict.fromkeys(dense, cls))
        return cls

    return add


def replacement(dense: nn.Module) -> type[FactorizedLayer]:
    """The factorized layer for exactly this type; a subclass may compute something else and is refused."""
    if type(dense) not in REPLACEMENTS:
        known = ", ".join(sorted(t.__name__ for t in REPLACEMENTS))
        raise UnsupportedError(
            f"there is no factorized layer for {type(dense).__name__}.", f"Known: {known}."
        )
    return REPLACEMENTS[type(dense)]


def check_roles(layout: Layout, wanted: Sequence[tuple[Role, ...]], name: str) -> None:
    """Raise LayoutError unless every group of the weight holds axes of the roles that the layer has there."""
    for group, roles in zip(layout.weight, wanted, strict=True):
        strange = [a for a in group if role(a) not in roles]
        if strange:
            allowed = " or ".join(f'"{letter}"' for letter, r in ROLES.items() if r in roles)
            raise LayoutError(
                f'layout "{layout}" calls an axis of {name} {strange}, which does not say its role.',
                f"Begin the name with {allowed}.",
            )


def new_bias(size: int, fan_in: int, like: Tensor) -> nn.Parameter:
    """Uniform in ± 1 / sqrt(fan_in), as torch's dense layers begin."""
    bound = fan_in**-0.5 if fan_in else 0.0
    return nn.Parameter(torch.empty(size, dtype=like.dtype, device=like.device).uniform_(-bound, bound))


def copied(bias: Tensor | None) -> nn.Parameter | None:
    """A bias of its own, with the values and the training flag of the dense layer's."""
    return None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
