"""The published sequences, written by hand from the factors of a factorized layer."""

import torch
from torch import Tensor, nn

from tenfold.nn import FactorizedConv, FactorizedLinear


def cp3(layer: FactorizedConv) -> nn.Sequential:
    """1×1, depthwise k×k, 1×1 (Lebedev et al. 2015, with the kernel's axes together: Astrid & Lee 2017)."""
    outputs, inputs, taps = layer.weight.value.matrices
    rank, size = outputs.shape[1], layer.kernel_size
    return nn.Sequential(
        convolution(inputs.T.reshape(rank, -1, 1, 1)),
        convolution(taps.T.reshape(rank, 1, *size), padding=layer.padding, groups=rank),
        convolution(outputs.reshape(-1, rank, 1, 1), layer.bias),
    )


def tucker2(layer: FactorizedConv) -> nn.Sequential:
    """1×1, k×k, 1×1 (Kim et al. 2016)."""
    core, (outputs, inputs, _) = layer.weight.value.core, layer.weight.value.matrices
    return nn.Sequential(
        convolution(inputs.T[..., None, None]),
        convolution(core.reshape(*core.shape[:2], *layer.kernel_size), padding=layer.padding),
        convolution(outputs[..., None, None], layer.bias),
    )


def spatial_svd(layer: FactorizedConv) -> nn.Sequential:
    """k×1, 1×k (Jaderberg et al. 2014)."""
    left, right = layer.weight.value.left, layer.weight.value.right
    rank, (high, wide) = right.shape[0], layer.kernel_size
    down = left.reshape(-1, high, 1, rank).permute(3, 0, 1, 2)
    across = right.reshape(rank, -1, 1, wide).transpose(0, 1)
    return nn.Sequential(
        convolution(down, padding=(layer.padding[0], 0)),
        convolution(across, layer.bias, padding=(0, layer.padding[1])),
    )


def lowrank(layer: FactorizedLinear) -> nn.Sequential:
    """Two linear maps."""
    value = layer.weight.value
    return nn.Sequential(linear(value.right), linear(value.left, layer.bias))


def convolution(
    kernel: Tensor, bias: Tensor | None = None, padding: int | tuple[int, ...] = 0, groups: int = 1
) -> nn.Module:
    """An `nn.Conv2d` that holds a contiguous copy of this kernel."""
    out_channels, per_group, *size = kernel.shape
    conv = nn.Conv2d(
        per_group * groups, out_channels, size, padding=padding, groups=groups, bias=bias is not None
    )
    return holding(conv, kernel, bias)


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """An `nn.Linear` that holds a contiguous copy of this weight."""
    return holding(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None), weight, bias)


def holding(module: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """`module` with these values in its parameters."""
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    return module
