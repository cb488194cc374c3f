"""Convolutions written by hand from the factors of a factorized one: published sequences, where there are."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from hand import Chains, convolution, own, owned, row_wise
from torch import Tensor, nn

from tenfold.nn import FactorizedConv


def both_orders(name: str, chain: nn.Module) -> Chains:
    """The chain as it is, and with its kernels in channels-last memory."""
    return {name: chain, f"{name}, channels-last": deepcopy(chain).to(memory_format=torch.channels_last)}


def weight_svd(layer: FactorizedConv) -> Chains:
    """1×1, k×k."""
    value, size = layer.weight.value, layer.kernel_size
    kernel = value.left.unflatten(0, (-1, *size)).movedim(-1, 1)
    chain = nn.Sequential(
        convolution(value.right[..., None, None]), convolution(kernel, layer.bias, layer.padding)
    )
    return both_orders("1×1, k×k", chain)


def channel_svd(layer: FactorizedConv) -> Chains:
    """k×k, 1×1 (Zhang et al. 2015)."""
    value, size = layer.weight.value, layer.kernel_size
    chain = nn.Sequential(
        convolution(value.right.unflatten(1, (-1, *size)), None, layer.padding),
        convolution(value.left[..., None, None], layer.bias),
    )
    return both_orders("k×k, 1×1", chain)


def spatial_svd(layer: FactorizedConv) -> Chains:
    """k×1, 1×k (Jaderberg et al. 2014)."""
    left, right = layer.weight.value.left, layer.weight.value.right
    rank, (high, wide) = right.shape[0], layer.kernel_size
    down = left.reshape(-1, high, 1, rank).permute(3, 0, 1, 2)
    across = right.reshape(rank, -1, 1, wide).transpose(0, 1)
    chain = nn.Sequential(
        convolution(down, None, (layer.padding[0], 0)),
        convolution(across, layer.bias, (0, layer.padding[1])),
    )
    return both_orders("k×1, 1×k", chain)


def spatial_svd_w(layer: FactorizedConv) -> Chains:
    """1×k, k×1."""
    left, right = layer.weight.value.left, layer.weight.value.right
    rank, (high, wide) = right.shape[0], layer.kernel_size
    across = left.reshape(-1, 1, wide, rank).permute(3, 0, 1, 2)
    down = right.reshape(rank, -1, high, 1).transpose(0, 1)
    chain = nn.Sequential(
        convolution(across, None, (0, layer.padding[1])),
        convolution(down, layer.bias, (layer.padding[0], 0)),
    )
    return both_orders("1×k, k×1", chain)


def cp3(layer: FactorizedConv) -> Chains:
    """1×1, depthwise k×k, 1×1 (Lebedev et al. 2015, with the kernel's axes together: Astrid & Lee 2017)."""
    outputs, inputs, taps = layer.weight.value.matrices
    rank = outputs.shape[1]
    chain = nn.Sequential(
        convolution(inputs.T[..., None, None]),
        convolution(taps.T.reshape(rank, 1, *layer.kernel_size), None, layer.padding, rank),
        convolution(outputs[..., None, None], layer.bias),
    )
    return both_orders("1×1, depthwise k×k, 1×1", chain)


def cp4(layer: FactorizedConv) -> Chains:
    """1×1, depthwise k×1 and 1×k, 1×1 (Lebedev et al. 2015); or these two multiplied to one first."""
    outputs, inputs, down, across = layer.weight.value.matrices
    rank, (high, wide) = outputs.shape[1], layer.padding
    chain = nn.Sequential(
        convolution(inputs.T[..., None, None]),
        convolution(down.T[:, None, :, None], None, (high, 0), rank),
        convolution(across.T[:, None, None, :], None, (0, wide), rank),
        convolution(outputs[..., None, None], layer.bias),
    )
    merged = both_orders("1×1, merged depthwise k×k, 1×1", MergedCP(layer))
    return both_orders("1×1, depthwise k×1, 1×k, 1×1", chain) | merged


def tucker2(layer: FactorizedConv) -> Chains:
    """1×1, k×k, 1×1 (Kim et al. 2016)."""
    core, (outputs, inputs, _) = layer.weight.value.core, layer.weight.value.matrices
    chain = nn.Sequential(
        convolution(inputs.T[..., None, None]),
        convolution(core.unflatten(2, layer.kernel_size), None, layer.padding),
        convolution(outputs[..., None, None], layer.bias),
    )
    return both_orders("1×1, k×k, 1×1", chain)


def tucker(layer: FactorizedConv) -> Chains:
    """1×1, k×k from the core and the spatial factors, 1×1."""
    return both_orders("1×1, merged k×k, 1×1", MergedTucker(layer))


def tt_conv(layer: FactorizedConv) -> Chains:
    """The kernel made and used: core by core (Garipov et al. 2016) takes ten times as long at this size."""
    return {"reconstructed": ReconstructedTT(layer)}


def tt(layer: FactorizedConv) -> Chains:
    """1×1, k×1, 1×k, 1×1."""
    first, down, across, last = layer.weight.value.cores
    first, last = first.reshape(-1, first.shape[-1]), last.reshape(len(last), -1)
    high, wide = layer.padding
    chain = nn.Sequential(
        convolution(first.T[..., None, None]),
        convolution(down.permute(2, 0, 1).unsqueeze(3), None, (high, 0)),
        convolution(across.permute(2, 0, 1).unsqueeze(2), None, (0, wide)),
        convolution(last.T[..., None, None], layer.bias),
    )
    return both_orders("1×1, k×1, 1×k, 1×1", chain)


class MergedCP(nn.Module):
    """The two depthwise kernels are multiplied before they are used."""

    def __init__(self, layer: FactorizedConv) -> None:
        super().__init__()
        outputs, inputs, down, across = layer.weight.value.matrices
        self.before = convolution(inputs.T[..., None, None])
        self.taps = owned([down.T, across.T])
        self.after = convolution(outputs[..., None, None], layer.bias)
        self.padding, self.size = layer.padding, layer.kernel_size

    def forward(self, x: Tensor) -> Tensor:
        kernel = row_wise(*self.taps).unflatten(1, (1, *self.size))
        x = F.conv2d(self.before(x), kernel, padding=self.padding, groups=len(kernel))
        return self.after(x)


class MergedTucker(nn.Module):
    """The core meets the spatial factors before it is used."""

    def __init__(self, layer: FactorizedConv) -> None:
        super().__init__()
        outputs, inputs, down, across = layer.weight.value.matrices
        self.before = convolution(inputs.T[..., None, None])
        self.core, self.down, self.across = own(layer.weight.value.core), own(down), own(across.T)
        self.after = convolution(outputs[..., None, None], layer.bias)
        self.padding = layer.padding

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.down @ (self.core @ self.across)
        return self.after(F.conv2d(self.before(x), kernel, padding=self.padding))


class ThreeCores(nn.Module):
    """The cores (taps, r), (r, o0, i0, s) and (s, o1, i1)."""

    def __init__(self, layer: FactorizedConv) -> None:
        super().__init__()
        sizes = dict(layer.layout.sizes)
        self.o0, self.i0, self.o1, self.i1 = (sizes[a] for a in ("o0", "i0", "o1", "i1"))
        taps, first, last = layer.weight.value.cores
        self.taps = own(taps.reshape(-1, taps.shape[-1]))
        self.first = own(first.reshape(len(first), -1))
        self.last = own(last.reshape(len(last), -1))
        self.bias, self.size, self.padding = own(layer.bias), layer.kernel_size, layer.padding


class ReconstructedTT(ThreeCores):
    """The kernel is made and used."""

    def forward(self, x: Tensor) -> Tensor:
        pairs = self.first.view(-1, len(self.last)) @ self.last
        kernel = self.taps @ pairs.view(len(self.first), -1)
        kernel = kernel.view(-1, self.o0, self.i0, self.o1, self.i1).permute(1, 3, 2, 4, 0)
        kernel = kernel.reshape(self.o0 * self.o1, self.i0 * self.i1, *self.size)
        return F.conv2d(x, kernel, self.bias, padding=self.padding)
