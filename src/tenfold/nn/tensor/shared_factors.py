"""Weights that share some of their factors: the slices of one tensor."""

from typing import Any

from torch import Tensor, nn

from tenfold.nn.memory import laid_out
from tenfold.nn.tensor.factorized import FactorizedTensor
from tenfold.nn.tensor.held import held


class SharedFactors(nn.Module):
    """The factors that several weights share; `kind` is the name of the format of the tensor behind them.

    As a module inside each of these weights, it is one object: copies, moves and loaded states cannot tear
    apart what belongs together.
    """

    def __init__(self, kind: str, factors: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.kind = kind
        for name, factor in factors.items():
            self.register_parameter(name, factor)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        for factor in self.parameters():
            if not factor.is_meta:
                factor.data = laid_out(factor.data)

    def extra_repr(self) -> str:
        """Format and shapes."""
        return ", ".join([self.kind, *(f"{n}={tuple(p.shape)}" for n, p in self.named_parameters())])


class SharingTensor(FactorizedTensor):
    """A weight of which some factors are its own, and others those of `shared`.

    What changes these, such as `set_`, changes them for all that share them.
    """

    shared: SharedFactors

    @classmethod
    def over(cls, plain: FactorizedTensor, shared: SharedFactors) -> "SharingTensor":
        """The tensor with the factors of `plain`, those that are in `shared` taken from there."""
        tensor = cls(plain.value, plain.layout, plain.program)
        for name in shared._parameters:
            del tensor._parameters[name]
        tensor.shared = shared
        tensor.requires_grad_(plain.requires_grad)
        return tensor.train(plain.training)

    def factors(self) -> list[Tensor]:
        """The parameters as they are stored, in the order of the program."""
        return [held(self._owner(name), [name])[0] for name in self.names]

    def _owner(self, name: str) -> nn.Module:
        """The module with a factor of its own or of all, or with what is computed in its place."""
        return self.shared if name not in self._parameters and hasattr(self.shared, name) else self

    def extra_repr(self) -> str:
        """Format of the joint tensor, shape and ranks."""
        return f"slice of {self.shared.kind}, shape={tuple(self.shape)}, ranks={self.ranks}"
