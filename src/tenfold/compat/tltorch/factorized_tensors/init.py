"""Initialisation by the deviation that the dense tensor is to have."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.factorized_tensors.block_tt import BlockTT
from tenfold.compat.tltorch.factorized_tensors.factorized_tensors import CPTensor, TTTensor, TuckerTensor
from tenfold.core.errors import OptionError

T = TypeVar("T", bound=FactorizedTensor)


def tensor_init(tensor: Any, std: float = 0.02) -> Any:
    """Normal entries of mean 0 and deviation `std` for the dense tensor, in place; plain tensors too.

    >>> x = TTTensor.new((20, 20, 20), rank=8)
    >>> bool((tensor_init(x, std=0.5).to_tensor().std() / 0.5 - 1).abs() < 0.2)
    True
    """
    if isinstance(tensor, FactorizedTensor):
        return tensor.normal_(0, std)
    if not isinstance(tensor, Tensor):
        raise OptionError(f"a {type(tensor).__name__} came.", "Give a tensor or a factorized tensor.")
    with torch.no_grad():
        return tensor.normal_(0, std)


def cp_init(cp_tensor: CPTensor, std: float = 0.02) -> CPTensor:
    """`tensor_init` for CP; weights become 1."""
    return _checked(cp_tensor, CPTensor).normal_(0, std)


def tucker_init(tucker_tensor: TuckerTensor, std: float = 0.02) -> TuckerTensor:
    """`tensor_init` for Tucker."""
    return _checked(tucker_tensor, TuckerTensor).normal_(0, std)


def tt_init(tt_tensor: TTTensor, std: float = 0.02) -> TTTensor:
    """`tensor_init` for a tensor train."""
    return _checked(tt_tensor, TTTensor).normal_(0, std)


def block_tt_init(block_tt: BlockTT, std: float = 0.02) -> BlockTT:
    """`tensor_init` for a block tensor train."""
    return _checked(block_tt, BlockTT).normal_(0, std)


def _checked(tensor: Any, kind: type[T]) -> T:
    if not isinstance(tensor, kind):
        raise OptionError(
            f"a {type(tensor).__name__} came for a {kind.__name__}.", "Use tensor_init for any."
        )
    return tensor
