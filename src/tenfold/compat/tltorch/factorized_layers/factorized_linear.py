"""Linear layers whose weight is a tensorized matrix."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tenfold.compat.tltorch.factorized_layers.joint import (
    Index,
    JointLayer,
    SubLayer,
    tensor_for,
    uniform_bias,
)
from tenfold.compat.tltorch.factorized_tensors.tensorized import TensorizedTensor
from tenfold.compat.tltorch.functional.linear import IMPLEMENTATIONS, factorized_linear
from tenfold.compat.tltorch.programs import linear_program, places_for, stored_for
from tenfold.compat.tltorch.utils.tensorize_shape import get_tensorized_shape
from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.nn.execute import run

SubFactorizedLinear = SubLayer


class FactorizedLinear(JointLayer):
    """A linear layer, or several, whose weight (out, in) is a tensorized matrix that is never made.

    "factorized" contracts the input with the factors in the cheapest order, planned when the layer is made;
    "reconstructed" makes the matrix at each call. New weights have the deviation of `nn.Linear`'s.

    >>> layer = FactorizedLinear((8, 8), (4, 8), rank=3, factorization="blocktt")
    >>> layer(torch.ones(5, 64)).shape, layer.rank
    (torch.Size([5, 32]), (1, 3, 1))
    """

    def __init__(
        self,
        in_tensorized_features: Sequence[int],
        out_tensorized_features: Sequence[int],
        bias: bool = True,
        factorization: str | TensorizedTensor = "cp",
        rank: Any = "same",
        implementation: str = "factorized",
        n_layers: int | tuple[int, ...] = 1,
        checkpointing: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if implementation not in IMPLEMENTATIONS:
            raise OptionError(
                f"implementation={implementation!r} came.", f"Choose one of {', '.join(IMPLEMENTATIONS)}."
            )
        self._set_layers(n_layers)
        self.in_tensorized_features = tuple(in_tensorized_features)
        self.out_tensorized_features = tuple(out_tensorized_features)
        self.in_features = math.prod(self.in_tensorized_features)
        self.out_features = math.prod(self.out_tensorized_features)
        self.tensorized_shape = self.out_tensorized_features + self.in_tensorized_features
        self.weight_shape = (self.out_features, self.in_features)
        self.input_rank, self.implementation, self.checkpointing = rank, implementation, checkpointing
        like = {"device": device, "dtype": dtype}
        sides = (*self.layers_shape, self.out_tensorized_features, self.in_tensorized_features)
        self.weight = tensor_for(factorization, TensorizedTensor, sides, rank, **like)
        if self.weight.tensorized_shape != sides and tuple(self.weight.shape) != (
            *self.layers_shape,
            *self.weight_shape,
        ):
            raise ShapeError(f"a tensor of shape {tuple(self.weight.shape)} came for a layer of {sides}.")
        self.bias = (
            uniform_bias((*self.layers_shape, self.out_features), self.in_features, like) if bias else None
        )
        if isinstance(factorization, str):
            self.weight.normal_(0, 1 / math.sqrt(3 * self.in_features))
        self.rank = self.weight.rank
        self.has_bias = bias
        outputs, inputs = self.weight.sides()[-2:]
        network = self._network()
        self.program = linear_program(network, inputs, outputs)
        self.places = places_for(network, self.program)

    def reset_parameters(self) -> None:
        """Weight and bias as in a new `nn.Linear`."""
        self.weight.normal_(0, 1 / math.sqrt(3 * self.in_features))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, indices: Index = 0) -> Tensor:
        """(..., in) -> (..., out), by layer number `indices` where there are several."""
        if x.shape[-1] != self.in_features:
            raise ShapeError(
                f"the layer takes {self.in_features} features, but the input is {tuple(x.shape)}."
            )
        index = self._index(indices)
        bias = self._bias(index)
        if self._foreign():
            return factorized_linear(x, self._called(index), bias, self.in_features, self.implementation)
        factors = self._factors(index)
        if self.checkpointing and torch.is_grad_enabled():
            result: Tensor = checkpoint(self._applied, x, factors, bias, use_reentrant=False)
            return result
        return self._applied(x, factors, bias)

    def _applied(self, x: Tensor, factors: list[Tensor], bias: Tensor | None) -> Tensor:
        if self.implementation == "reconstructed":
            eye = torch.eye(self.in_features, dtype=factors[0].dtype, device=x.device)
            stored = stored_for(factors, self.places)
            return nn.functional.linear(x, run(self.program, eye, stored).T, bias)
        return run(self.program, x, stored_for(factors, self.places), bias)

    def get_linear(self, indices: Index) -> nn.Module:
        """One of several layers."""
        return self[indices]

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        rank: Any = "same",
        auto_tensorize: bool = True,
        n_tensorized_modes: int = 3,
        in_tensorized_features: Sequence[int] | None = None,
        out_tensorized_features: Sequence[int] | None = None,
        bias: bool = True,
        factorization: str = "CP",
        implementation: str = "factorized",
        checkpointing: bool = False,
        decomposition_kwargs: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> Self:
        """The layer whose weight is fitted to that of `linear`; it has a bias of its own if `linear` has one.

        `bias=False` for a layer that has one is refused, as it would compute something else.
        """
        _check_linear(linear, bias)
        out_features, in_features = linear.weight.shape
        if auto_tensorize:
            if in_tensorized_features is not None or out_tensorized_features is not None:
                raise OptionError(
                    "auto_tensorize=True came with tensorized features.",
                    "Give auto_tensorize=False, or no shapes.",
                )
            sides = get_tensorized_shape(in_features, out_features, n_tensorized_modes, verbose=verbose)
        elif in_tensorized_features is None or out_tensorized_features is None:
            raise OptionError("auto_tensorize=False came without tensorized features.", "Give both.")
        else:
            sides = tuple(in_tensorized_features), tuple(out_tensorized_features)
        like: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        made = cls(
            *sides, linear.bias is not None, factorization, rank, implementation, 1, checkpointing, **like
        )
        made.weight.init_from_matrix(linear.weight.detach(), **(decomposition_kwargs or {}))
        if made.bias is not None:
            with torch.no_grad():
                made.bias.copy_(linear.bias)
        return made.train(linear.training)

    @classmethod
    def from_linear_list(
        cls,
        linear_list: Sequence[nn.Linear],
        in_tensorized_features: Sequence[int],
        out_tensorized_features: Sequence[int],
        rank: Any,
        bias: bool = True,
        factorization: str = "CP",
        implementation: str = "factorized",
        checkpointing: bool = False,
        decomposition_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Several layers of one shape whose weights are fitted by one tensor; `layer[i]` is one of them."""
        for linear in linear_list:
            _check_linear(linear, bias)
        if len({tuple(linear.weight.shape) for linear in linear_list}) != 1:
            raise ShapeError(
                f"{len(linear_list)} layers of several shapes came.", "Give layers of one shape."
            )
        first = linear_list[0].weight
        made = cls(
            in_tensorized_features,
            out_tensorized_features,
            any(linear.bias is not None for linear in linear_list),
            factorization,
            rank,
            implementation,
            len(linear_list),
            checkpointing,
            first.device,
            first.dtype,
        )
        stack = torch.stack([linear.weight.detach() for linear in linear_list])
        matrix = stack if len(linear_list) > 1 else stack[0]
        made.weight.init_from_matrix(matrix, **(decomposition_kwargs or {}))
        if made.bias is not None:
            with torch.no_grad():
                for row, linear in zip(made.bias.view(len(linear_list), -1), linear_list, strict=True):
                    row.copy_(linear.bias if linear.bias is not None else torch.zeros_like(row))
        return made

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"tensorized to {self.out_tensorized_features} x {self.in_tensorized_features}, "
            f"bias={self.bias is not None}, n_layers={self.n_layers}, implementation={self.implementation}"
        )


def _check_linear(linear: Any, bias: bool) -> None:
    if not isinstance(linear, nn.Linear):
        raise UnsupportedError(f"a {type(linear).__name__} came.", "Give an nn.Linear.")
    if linear.bias is not None and not bias:
        raise OptionError("bias=False came for a layer with a bias.", "Leave it out: it is taken over.")
