"""What the factorizations share: parameters that are held, and fits into them."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.factorized_tensors.fitting import spread
from tenfold.compat.tltorch.utils.parameter_list import FactorList
from tenfold.core.errors import OptionError, ShapeError

STD = 0.02
"""Deviation of the entries of a new tensor."""


def empty(shape: Sequence[int], device: Any, dtype: torch.dtype | None) -> nn.Parameter:
    """A parameter without values."""
    return nn.Parameter(torch.empty(tuple(shape), device=device, dtype=dtype))


def refuse_fixed(modes: Sequence[int] | None, name: str) -> None:
    """Raise OptionError if modes shall stay whole, which only Tucker can do."""
    if modes is not None:
        raise OptionError(
            f"fixed_rank_modes={modes!r} came for {name}.", 'Leave it out, or take factorization="Tucker".'
        )


class Widened(FactorizedTensor):
    """A tensor whose factorization can have modes that the tensor it is fitted to has not got."""

    def init_from_tensor(
        self,
        tensor: Tensor,
        unsqueezed_modes: Sequence[int] | None = None,
        unsqueezed_init: str | float = "average",
        **options: Any,
    ) -> Self:
        """Fit the factors to a dense tensor, in place: parameters stay the same objects.

        `unsqueezed_modes` are modes that `tensor` lacks: the result is constant along them, with the value of
        `tensor` divided by the mode's size ("average") or times a number.
        """
        if unsqueezed_modes is not None:
            tensor = spread(
                tensor, [k % self.order for k in unsqueezed_modes], self.tensor_shape, unsqueezed_init
            )
        self._check_source(tensor)
        return self._fit(tensor, options)

    def _fit(self, tensor: Tensor, options: dict[str, Any]) -> Self:
        raise NotImplementedError

    def _hold(self, name: str, value: Tensor) -> None:
        """Keep a factor: a parameter, or a tensor with a gradient of its own."""
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value)

    def _list(self, factors: Sequence[Tensor]) -> FactorList:
        return FactorList(factors)


def position(order: int, mode: int) -> int:
    """Before which mode a new one goes, counted from 0: -1 is before the last, as `list.insert` has it.

    >>> position(3, -1), position(3, 3)
    (2, 3)
    """
    if not -order <= mode <= order:
        raise ShapeError(
            f"a mode cannot go to position {mode} of {order} modes.", f"Choose one from {-order} to {order}."
        )
    return mode + order if mode < 0 else mode


def inserted(tensor: Any, at: int, new: Tensor) -> FactorList:
    """The factors with one more, a parameter; all are named anew by their place."""
    found = list(tensor.factors.own())
    found.insert(at, tensor._list([nn.Parameter(new.detach().clone())]).own()[0])
    return tensor.factors.of(found)
