"""Tensor regression: the inner product of each input with a factorized weight."""

from typing import Any

from torch import Tensor

from tenfold.compat.tltorch.programs import multiplied
from tenfold.core.errors import OptionError, ShapeError


def trl(x: Tensor, weight: Any, bias: Tensor | None = None, project_input: bool = True) -> Tensor:
    """x (batch, *inputs) meets a weight (*inputs, *outputs): (batch, *outputs); the weight is never formed.

    `project_input=False`, which in TensorLy-Torch means that the weight is formed, is refused.
    """
    if not project_input:
        raise OptionError("project_input=False came.", "Leave it out: the cheapest order is found by itself.")
    count = x.ndim - 1
    modes, shape = weight.network.modes, tuple(weight.tensor_shape)
    if tuple(x.shape[1:]) != shape[:count]:
        raise ShapeError(f"an input of shape {tuple(x.shape)} came for a weight of shape {shape}.")
    flat = x.flatten(1) if count else x.unsqueeze(1)
    found = multiplied(flat, weight.gated_arrays(), weight.network, modes[:count], modes[count:])
    found = found.reshape(x.shape[0], *shape[count:])
    return found if bias is None else found + bias


def tucker_trl(x: Tensor, weight: Any, project_input: bool = True, bias: Tensor | None = None) -> Tensor:
    """As `trl`."""
    return trl(x, weight, bias, project_input)
