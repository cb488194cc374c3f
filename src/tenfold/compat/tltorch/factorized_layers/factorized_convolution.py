"""Convolutions of order 1, 2 and 3 whose kernel is a factorized tensor."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_layers.dense_sources import DenseSources
from tenfold.compat.tltorch.factorized_layers.joint import (
    Index,
    JointLayer,
    SubLayer,
    tensor_for,
    uniform_bias,
)
from tenfold.compat.tltorch.factorized_layers.kernel_shapes import (
    factorization_shape_to_kernel_shape,
    kernel_shape_to_factorization_shape,
    kernel_to_tensor,
    outputs_last,
    tensor_to_kernel,
)
from tenfold.compat.tltorch.factorized_layers.layer_settings import LayerSettings, options_of
from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.functional.convolution import CONVOLUTIONS, IMPLEMENTATIONS, convNd
from tenfold.compat.tltorch.kernels import KernelPlan, convolved, each, kernel_plan
from tenfold.core.errors import OptionError, ShapeError, UnsupportedError

SubFactorizedConv = SubLayer

__all__ = [
    "FactorizedConv",
    "SubFactorizedConv",
    "factorization_shape_to_kernel_shape",
    "kernel_shape_to_factorization_shape",
    "kernel_to_tensor",
    "tensor_to_kernel",
]


class FactorizedConv(DenseSources, LayerSettings, JointLayer):
    """A convolution, or several, whose kernel is a factorized tensor that is never made.

    Steps are planned when the layer is made: CP is 1x1, depthwise, 1x1, and Tucker 1x1, a small kernel, 1x1.
    "mobilenet" means the same as "factorized"; "reconstructed" makes the kernel at each call. `n_layers`
    convolutions of one shape share a tensor, each with stride, padding and dilation of its own.

    >>> layer = FactorizedConv(64, 64, 3, order=2, padding=1, rank=(16, 16, 3, 3), factorization="tucker")
    >>> layer(torch.zeros(2, 64, 8, 8)).shape, layer.program.kinds
    (torch.Size([2, 64, 8, 8]), ('merge', 'merge', '1x1', '3x3', '1x1'))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        order: int | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        bias: bool = False,
        has_bias: Any = None,
        n_layers: int | tuple[int, ...] = 1,
        factorization: str | FactorizedTensor = "cp",
        rank: Any = "same",
        implementation: str = "factorized",
        fixed_rank_modes: str | Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        if implementation not in IMPLEMENTATIONS:
            raise OptionError(
                f"implementation={implementation!r} came.", f"Choose one of {', '.join(IMPLEMENTATIONS)}."
            )
        self._set_layers(n_layers)
        self.kernel_size = _taps(kernel_size, order)
        self.order = len(self.kernel_size)
        if in_channels % groups or out_channels % groups:
            raise OptionError(f"{groups} groups do not divide {in_channels} and {out_channels} channels.")
        self.in_channels, self.out_channels, self.implementation = in_channels, out_channels, implementation
        self.input_rank, self.factorization = rank, factorization
        self._set_options(stride, padding, dilation, groups, padding_mode, has_bias, bias)
        like = {"device": device, "dtype": dtype}
        kernel = (out_channels, in_channels // groups, *self.kernel_size)
        name = factorization if isinstance(factorization, str) else factorization.name
        shape = (*self.layers_shape, *kernel_shape_to_factorization_shape(name, kernel))
        fixed = self._fixed(fixed_rank_modes)
        self.weight = tensor_for(factorization, FactorizedTensor, shape, rank, fixed_rank_modes=fixed, **like)
        if tuple(self.weight.shape) != shape:
            raise ShapeError(f"a tensor of shape {tuple(self.weight.shape)} came, for {shape}.")
        fan_in = math.prod(kernel[1:])
        self.bias = uniform_bias((*self.layers_shape, out_channels), fan_in, like) if bias else None
        if isinstance(factorization, str):
            self.weight.normal_(0, 1 / math.sqrt(3 * fan_in))
        self._describe()

    def _fixed(self, modes: str | Sequence[int] | None) -> Sequence[int] | None:
        if modes != "spatial":
            if isinstance(modes, str):
                raise OptionError(f"fixed_rank_modes={modes!r} came.", 'Give "spatial", or numbers of modes.')
            return modes
        first = len(self.layers_shape) + 2
        return list(range(first, first + self.order))

    def _describe(self) -> None:
        """What follows from the weight: its rank and shape, and the steps of each layer."""
        self.rank, self.shape = self.weight.rank, self.weight.shape
        self.kernel_shape = tuple(self.shape[len(self.layers_shape) :])
        network, last = self._network(), outputs_last(self.weight.name)
        self.plans: dict[tuple[int, ...], KernelPlan] = {
            index: kernel_plan(network, last, self.options[index]) for index in self.options
        }
        self.program = next(iter(self.plans.values())).program

    def forward(self, x: Tensor, indices: Index = 0) -> Tensor:
        """(batch, in, *positions) -> (batch, out, *positions), by convolution number `indices`."""
        index = self._index(indices)
        channels = x.shape[1 if x.ndim == self.order + 2 else 0]
        if x.ndim not in (self.order + 1, self.order + 2) or channels != self.in_channels:
            raise ShapeError(
                f"the layer takes (batch, {self.in_channels}, {self.order} axes), "
                f"but the input is {tuple(x.shape)}."
            )
        bias = self._bias(index) if self.has_bias[index] else None
        if self._foreign():
            return self._by_hooks(x, index, bias)
        factors, plan = self._factors(index), self.plans[index]
        if self.implementation == "reconstructed":
            return self._reconstructed(x, index, bias)
        return convolved(x, factors, plan, bias)

    def _reconstructed(self, x: Tensor, index: tuple[int, ...], bias: Tensor | None) -> Tensor:
        weight = self._called(index)._dense()
        kernel = tensor_to_kernel(self.weight.name, weight)
        (options,) = (self.options[index],)
        padded, padding = self.padded(x, options)
        convolution = CONVOLUTIONS[self.order]
        return convolution(padded, kernel, bias, options.stride, padding, options.dilation, options.groups)

    def _by_hooks(self, x: Tensor, index: tuple[int, ...], bias: Tensor | None) -> Tensor:
        options = self.options[index]
        if options.groups > 1 or options.padding_mode != "zeros":
            return self._reconstructed(x, index, bias)
        weight, how = self._called(index), self.implementation
        return convNd(x, weight, bias, options.stride, options.padding, options.dilation, how)

    def reset_parameters(self, std: float = 0.02) -> None:
        """New factors, such that entries of the kernel have deviation `std`, and a bias of 0."""
        self.weight.normal_(0, std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def set(
        self, indices: Index, stride: Any = 1, padding: Any = 0, dilation: Any = 1, bias: Tensor | None = None
    ) -> None:
        """Give one of the convolutions its settings; a bias is copied."""
        index, old = self._index(indices), next(iter(self.options.values()))
        self.options[index] = options_of(stride, padding, dilation, old.groups, old.padding_mode, self.order)
        if bias is not None:
            if self.bias is None:
                raise OptionError("a bias came, but the layer has none.", "Make it with bias=True.")
            with torch.no_grad():
                (self.bias[index] if index else self.bias).copy_(bias)
            self.has_bias[index] = True
        self._describe()

    def get_conv(self, indices: Index) -> nn.Module:
        """One of several convolutions."""
        return self[indices]

    def transduct(
        self,
        kernel_size: int,
        mode: int = 0,
        padding: int = 0,
        stride: int = 1,
        dilation: int = 1,
        fine_tune_transduction_only: bool = True,
    ) -> Self:
        """One more axis to slide over, at position `mode` among the spatial ones, in place.

        The new kernel has the old one at its central tap and zeros elsewhere, so that frames are convolved
        one by one until it is trained. With `fine_tune_transduction_only` all other parameters are frozen.
        """
        if not 0 <= mode <= self.order or self.order == 3:
            raise OptionError(f"mode={mode} came for order {self.order}.", "The new order is 3 at most.")
        if not hasattr(self.weight, "transduct"):
            raise UnsupportedError(f"a {self.weight.name} kernel has no factors to add one to.", "Use CP.")
        if fine_tune_transduction_only:
            self.requires_grad_(False)
        at = len(self.layers_shape) + mode + (1 if outputs_last(self.weight.name) else 2)
        self.weight.transduct(kernel_size, at)
        with torch.no_grad():
            new = self.weight.factors[at]
            taps = torch.arange(kernel_size, device=new.device).view(-1, 1)
            new.mul_(taps == kernel_size // 2)
        self.kernel_size = (*self.kernel_size[:mode], kernel_size, *self.kernel_size[mode:])
        self.order += 1
        self._widen(mode, stride, padding, dilation)
        self._describe()
        return self

    def extra_repr(self) -> str:
        """Sizes and settings."""
        shown = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, rank={self.rank}"]
        for index, o in self.options.items():
            name = f"layer {index}: " if index else ""
            shown.append(f"{name}stride={o.stride}, padding={o.padding}, dilation={o.dilation}")
        return ", ".join([*shown, f"bias={self.bias is not None}"])


def _taps(kernel_size: int | Sequence[int], order: int | None) -> tuple[int, ...]:
    if isinstance(kernel_size, int):
        if order is None or order < 1:
            raise OptionError(
                f"kernel_size={kernel_size} came with order={order}.", "Give order=1, 2 or 3 with it."
            )
        return (kernel_size,) * order
    taps = each(tuple(kernel_size), len(tuple(kernel_size)))
    if order not in (None, len(taps)):
        raise OptionError(f"kernel_size={taps} came with order={order}.", "Leave the order out.")
    return taps
