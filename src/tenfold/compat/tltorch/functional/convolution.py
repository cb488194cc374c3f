"""Convolutions with dense or factorized kernels of order 1, 2 and 3."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.factorized_tensors.factorized_tensors import CPTensor, TTTensor, TuckerTensor
from tenfold.compat.tltorch.kernels import convolved, each, kernel_plan
from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.nn.convolution.options import ConvOptions

Numbers = int | Sequence[int]
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
IMPLEMENTATIONS = ("factorized", "reconstructed", "mobilenet")


def convolve(
    x: Tensor,
    weight: Tensor | FactorizedTensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """The convolution with a kernel (out, in / groups, *taps); a factorized one is made dense first.

    A train is a kernel with the outputs last, as `FactorizedConv` holds it.
    """
    if isinstance(weight, FactorizedTensor):
        outputs_last, weight = isinstance(weight, TTTensor), weight._dense()
        weight = weight.movedim(-1, 0) if outputs_last else weight
    if weight.ndim - 2 not in CONVOLUTIONS:
        raise UnsupportedError(
            f"a kernel of order {weight.ndim - 2} came.", "torch convolves over 1, 2 or 3 axes."
        )
    return CONVOLUTIONS[weight.ndim - 2](x, weight, bias, stride, padding, dilation, groups)


def convNd(
    x: Tensor,
    weight: Tensor | FactorizedTensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    implementation: str = "factorized",
) -> Tensor:
    """The convolution with a kernel in any factorization; its factors meet the input in the cheapest order.

    "reconstructed" makes the kernel dense; "mobilenet" means the same as "factorized": whether taps of
    several axes are merged into one depthwise kernel is for the planner to find.
    """
    if implementation not in IMPLEMENTATIONS:
        raise OptionError(
            f"implementation={implementation!r} came.", f"Choose one of {', '.join(IMPLEMENTATIONS)}."
        )
    if implementation == "reconstructed" or isinstance(weight, Tensor):
        return convolve(x, weight, bias, stride, padding, dilation)
    order = weight.ndim - 2
    ends: Any = padding if isinstance(padding, str) else each(padding, order)
    options = ConvOptions(each(stride, order), ends, each(dilation, order), 1)
    plan = kernel_plan(weight.network, isinstance(weight, TTTensor), options)
    return convolved(x, weight.gated_arrays(), plan, bias)


def cp_conv(
    x: Tensor,
    cp_tensor: CPTensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    dilation: Numbers = 1,
) -> Tensor:
    """`convNd` for CP."""
    return convNd(x, cp_tensor, bias, stride, padding, dilation)


cp_conv_mobilenet = cp_conv


def tucker_conv(
    x: Tensor,
    tucker_tensor: TuckerTensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    dilation: Numbers = 1,
) -> Tensor:
    """`convNd` for Tucker.

    >>> import torch
    >>> kernel = TuckerTensor.new((8, 4, 3, 3), rank=(2, 2, 3, 3))
    >>> tucker_conv(torch.ones(1, 4, 9, 9), kernel, padding=1).shape
    torch.Size([1, 8, 9, 9])
    """
    return convNd(x, tucker_tensor, bias, stride, padding, dilation)


def tt_conv(
    x: Tensor,
    tt_tensor: TTTensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    dilation: Numbers = 1,
) -> Tensor:
    """`convNd` for a train of modes (in, *taps, out)."""
    return convNd(x, tt_tensor, bias, stride, padding, dilation)


def general_conv1d(
    x: Tensor,
    kernel: Tensor,
    mode: int,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
    verbose: bool = False,
) -> Tensor:
    """The convolution of x (batch, in, *positions) with a kernel (out, in / groups, taps) along one axis."""
    if verbose:
        raise OptionError("verbose=True came, but nothing is printed here.", "Leave it out.")
    order, at = x.ndim - 2, mode - 2

    def alone(value: int, other: int) -> list[int]:
        return [value if k == at else other for k in range(order)]

    wide = kernel.reshape(*kernel.shape[:2], *alone(kernel.shape[2], 1))
    return convolve(x, wide, bias, alone(stride, 1), alone(padding, 0), alone(dilation, 1), groups)


general_conv1d_ = general_conv1d
