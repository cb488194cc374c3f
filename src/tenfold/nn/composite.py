"""Modules with several weights, made of linear layers, so that each weight can have its own factors."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from torch import nn


class Composite(nn.Module, ABC):
    """A recurrent or an attention module whose weights are those of ordinary linear layers inside it.

    Each of these is an `nn.Linear` or a `FactorizedLinear`, and may be replaced: whole-model compression
    finds them as sites like all others.
    """

    @classmethod
    @abstractmethod
    def opened(cls, dense: nn.Module) -> Self:
        """The same function, of `nn.Linear`s whose parameters lie in the memory of those of `dense`."""

    @abstractmethod
    def to_dense(self) -> nn.Module:
        """The torch module that computes the same, with memory of its own."""


Opening = Callable[[nn.Module], nn.Module]

OPENINGS: dict[str, Opening] = {}
"""Full name of a dense module type -> what gives the same module made of linear layers."""


def composes(*dense: type[nn.Module]) -> Callable[[type[Composite]], type[Composite]]:
    """Class decorator: the composite takes the place of these dense types."""

    def add(cls: type[Composite]) -> type[Composite]:
        OPENINGS.update(dict.fromkeys(map(full_name, dense), cls.opened))
        return cls

    return add


def full_name(kind: type) -> str:
    """Such as "torch.nn.modules.rnn.LSTM"."""
    return f"{kind.__module__}.{kind.__qualname__}"


def opening(module: nn.Module) -> Opening | None:
    """What opens a module of exactly this type; None for others."""
    return OPENINGS.get(full_name(type(module)))
