"""Lists of factors that are parameters, or plain tensors with a gradient."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError


class FactorList(nn.Module):
    """A list of parameters, of tensors, or of such lists; parameters are registered, tensors are buffers.

    Names in a state are "factor_0", "factor_1", ..., as in TensorLy-Torch.

    >>> factors = FactorList([nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(4, 2))])
    >>> len(factors), [tuple(f.shape) for f in factors], list(factors.state_dict())
    (2, [(3, 2), (4, 2)], ['factor_0', 'factor_1'])
    """

    stem: ClassVar[str] = "factor"
    keys: list[str]

    def __init__(self, parameters: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.keys, self.counter = [], 0
        self.extend(parameters or ())

    def _unique_key(self) -> str:
        self.counter += 1
        return f"{self.stem}_{self.counter - 1}"

    def _keep(self, key: str, element: Any) -> None:
        """Register an element under its name, in the place of what had it."""
        for table in (self._parameters, self._buffers, self._modules):
            table.pop(key, None)
        if isinstance(element, nn.Parameter):
            self.register_parameter(key, element)
        elif isinstance(element, Tensor):
            self.register_buffer(key, element)
        else:
            self.add_module(key, type(self)(element))

    def _read(self, key: str) -> Any:
        return getattr(self, key)

    def own(self) -> list[Any]:
        """What is registered, as it is."""
        return [getattr(self, key) for key in self.keys]

    @classmethod
    def of(cls, registered: Iterable[Any]) -> Self:
        """The list of what is registered already, such as `own` gives."""
        made = cls()
        for element in registered:
            key = made._unique_key()
            FactorList._keep(made, key, element)
            made.keys.append(key)
        return made

    def append(self, element: Any) -> None:
        """Add one at the end."""
        self.insert(len(self.keys), element)

    def insert(self, index: int, element: Any) -> None:
        """Add one before position `index`, under a name that is new."""
        key = self._unique_key()
        self._keep(key, element)
        self.keys.insert(index, key)

    def pop(self, index: int = -1) -> Any:
        """Take one out."""
        element = self[index]
        del self[index]
        return element

    def extend(self, parameters: Iterable[Any]) -> None:
        """Add several at the end."""
        for element in parameters:
            self.append(element)

    def __getitem__(self, index: Any) -> Any:
        keys = self.keys[index]
        return type(self)([self._read(k) for k in keys]) if isinstance(keys, list) else self._read(keys)

    def __setitem__(self, index: int, value: Any) -> None:
        self._keep(self.keys[index], value)

    def __delitem__(self, index: int) -> None:
        delattr(self, self.keys[index])
        del self.keys[index]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Any]:
        return (self._read(key) for key in self.keys)

    def __add__(self, parameters: Iterable[Any]) -> Self:
        return type(self)([*self, *parameters])

    def __radd__(self, parameters: Iterable[Any]) -> Self:
        return type(self)([*parameters, *self])

    def __iadd__(self, parameters: Iterable[Any]) -> Self:
        self.extend(parameters)
        return self

    def extra_repr(self) -> str:
        """Name, shape and dtype of each."""
        held = [(key, x) for key in self.keys if isinstance(x := self._read(key), Tensor)]
        return "\n".join(f"({key}): {tuple(x.shape)} of {x.dtype}" for key, x in held)


class ComplexFactorList(FactorList):
    """A list of complex factors, each kept as pairs of real numbers along a last axis of size 2.

    What is read from it is complex; what optimizers, states and other processes see is real.

    >>> factors = ComplexFactorList([nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))])
    >>> factors[0].dtype, next(factors.parameters()).shape
    (torch.complex64, torch.Size([3, 2, 2]))
    """

    def _keep(self, key: str, element: Any) -> None:
        super()._keep(key, pairs(element) if isinstance(element, Tensor) else element)

    def _read(self, key: str) -> Any:
        held = super()._read(key)
        return torch.view_as_complex(held) if isinstance(held, Tensor) else held


class ParameterList(FactorList):
    """A list of parameters only; names in a state are "param_0", "param_1", ..."""

    stem = "param"

    def _keep(self, key: str, element: Any) -> None:
        if not isinstance(element, nn.Parameter):
            raise OptionError(
                f"a ParameterList was given a {type(element).__name__}.",
                "Wrap it in nn.Parameter, or use a FactorList, which takes tensors too.",
            )
        super()._keep(key, element)


def pairs(value: Tensor) -> Tensor:
    """A complex tensor as (..., 2) real numbers over the same memory, a parameter if it was one."""
    if isinstance(value, nn.Parameter):
        return nn.Parameter(torch.view_as_real(value.detach()), requires_grad=value.requires_grad)
    return torch.view_as_real(value)
