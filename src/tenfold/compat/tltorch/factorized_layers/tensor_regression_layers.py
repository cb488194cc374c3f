"""Tensor regression layers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_layers.joint import Index, JointLayer, tensor_for
from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.functional.tensor_regression import trl
from tenfold.compat.tltorch.programs import linear_program, places_for, stored_for
from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.nn.execute import run


class TRL(JointLayer):
    """y = <X, W> over all axes of an input but the batch; W (*inputs, *outputs) is factorized and never made.

    Source: Kossaifi et al., 'Tensor regression networks', JMLR 21, 2020, arXiv:1707.08308.

    >>> layer = TRL((8, 4, 4), (10,), rank=3, factorization="cp", bias=True)
    >>> layer(torch.ones(2, 8, 4, 4)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        input_shape: int | Sequence[int],
        output_shape: int | Sequence[int],
        bias: bool = False,
        verbose: int = 0,
        factorization: str | FactorizedTensor = "cp",
        rank: Any = "same",
        n_layers: int | tuple[int, ...] = 1,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if verbose:
            raise OptionError(f"verbose={verbose} came, but nothing is printed here.", "Leave it out.")
        self._set_layers(n_layers)
        self.input_shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
        self.output_shape = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        self.n_input, self.n_output = len(self.input_shape), len(self.output_shape)
        self.weight_shape = self.input_shape + self.output_shape
        self.order = len(self.weight_shape)
        shape = (*self.layers_shape, *self.weight_shape)
        like = {"device": device, "dtype": dtype}
        self.weight = tensor_for(factorization, FactorizedTensor, shape, rank, **like)
        if tuple(self.weight.tensor_shape) != shape:
            raise ShapeError(f"a tensor of shape {tuple(self.weight.tensor_shape)} came, for {shape}.")
        ends = (*self.layers_shape, *self.output_shape)
        self.bias = nn.Parameter(torch.zeros(ends, device=device, dtype=dtype)) if bias else None
        if isinstance(factorization, str):
            self.init_from_random()
        self.factorization = self.weight.name
        network = self._network()
        modes = network.modes
        self.program = linear_program(network, modes[: self.n_input], modes[self.n_input :])
        self.places = places_for(network, self.program)

    def forward(self, x: Tensor, indices: Index = 0) -> Tensor:
        """(batch, *inputs) -> (batch, *outputs), by layer number `indices` where there are several."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ShapeError(f"the layer takes inputs {self.input_shape}, but {tuple(x.shape)} came.")
        index = self._index(indices)
        bias = self._bias(index)
        if self._foreign():
            return trl(x, self._called(index), bias)
        flat = x.flatten(1) if self.n_input else x.unsqueeze(1)
        found = run(self.program, flat, stored_for(self._factors(index), self.places))
        found = found.unflatten(-1, self.output_shape) if self.n_output else found.squeeze(-1)
        return found if bias is None else found + bias

    def init_from_random(self, decompose_full_weight: bool = False) -> None:
        """New factors with the deviation of `nn.Linear`'s weight, and a bias likewise.

        With `decompose_full_weight` they are fitted to a dense random weight.
        """
        bound = 1 / math.sqrt(math.prod(self.input_shape))
        if decompose_full_weight:
            like = next(self.weight.parameters())
            full = torch.randn(self.weight.tensor_shape, device=like.device, dtype=like.dtype)
            self.weight.init_from_tensor(full * bound / math.sqrt(3))
        else:
            self.weight.normal_(0, bound / math.sqrt(3))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def init_from_linear(
        self, linear: nn.Linear, unsqueezed_modes: Sequence[int] | None = None, **options: Any
    ) -> None:
        """Fit the weight to a dense layer's, and copy its bias.

        `unsqueezed_modes` are input axes over which the network has averaged before its dense layer: it
        takes over the pooling, in any factorization, and computes the same as long as it is not trained.
        `options` are those of `FactorizedTensor.from_tensor`.
        """
        if not isinstance(linear, nn.Linear) or self.layers_shape:
            raise UnsupportedError(
                f"a {type(linear).__name__} came.", "Give an nn.Linear, for a single layer."
            )
        pooled = sorted(k % self.order for k in unsqueezed_modes or ())
        if pooled and (pooled[0] == 0 or pooled[-1] >= self.n_input):
            raise OptionError(
                f"unsqueezed_modes={list(unsqueezed_modes or ())} came for {self.n_input} input axes.",
                "Give input axes from 1 on: channels are not pooled.",
            )
        if (self.bias is None) != (linear.bias is None):
            raise OptionError(
                f"the layer has bias={self.bias is not None}, the dense one {linear.bias is not None}.",
                "Make the TRL with the same.",
            )
        shape = [n for k, n in enumerate(self.weight_shape) if k not in pooled]
        weight = linear.weight.detach().T
        if weight.numel() != math.prod(shape):
            raise ShapeError(f"a weight of shape {tuple(weight.shape)} came for modes {tuple(shape)}.")
        self.weight.init_from_tensor(weight.reshape(shape), unsqueezed_modes=pooled or None, **options)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.copy_(linear.bias.reshape(self.output_shape))

    def extra_repr(self) -> str:
        """Shapes."""
        return f"{self.input_shape} -> {self.output_shape}, bias={self.bias is not None}"
