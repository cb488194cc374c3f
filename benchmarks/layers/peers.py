"""TensorLy-Torch's layers with the factors of ours, in each of its implementations.

It has no low-rank format; CP of a matrix that is not split is the same sum. It has no LSTM, and of a
convolution no format but CP, Tucker and TT.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tenfold.formats import formats
from tenfold.nn import FactorizedConv, FactorizedEmbedding, FactorizedLinear

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tltorch
except ImportError:
    tltorch = None

Peers = dict[str, nn.Module]
NAME = "TensorLy-Torch"
LINEAR = ("factorized", "reconstructed")
CP_CONVOLUTION = ("factorized", "mobilenet", "reconstructed")


def linear(layer: FactorizedLinear) -> Peers:
    """The same factors over the same splits of outputs and inputs."""
    sizes = splits(layer)
    return {
        f"{NAME}, {how}": with_bias(
            tltorch.FactorizedLinear(sizes[1], sizes[0], True, matrix(layer, sizes), implementation=how),
            layer,
        )
        for how in LINEAR
    }


def embedding(layer: FactorizedEmbedding) -> Peers:
    """The same factors; there is one implementation."""
    rows, columns = splits(layer)
    made = tltorch.FactorizedEmbedding(
        layer.num_embeddings, layer.embedding_dim, auto_tensorize=False, tensorized_num_embeddings=rows,
        tensorized_embedding_dim=columns, factorization="cp", rank=1,
    )  # fmt: skip
    made.weight = matrix(layer, (rows, columns))
    made.factorization = KINDS[format_of(layer)]
    return {NAME: made}


def conv(layer: FactorizedConv) -> Peers:
    """The same kernel: CP, or Tucker, whose spatial axes have a factor each or are one mode."""
    value, size = layer.weight.value, layer.kernel_size
    if format_of(layer) == "cp":
        outputs, inputs, *taps = value.matrices
        taps = list(separated(taps[0], size)) if len(taps) == 1 else taps
        factors = [copied(f) for f in (outputs, inputs, *taps)]
        kernel = tltorch.CPTensor(nn.Parameter(torch.ones(outputs.shape[1])), factors)
        return {f"{NAME}, {how}": convolution(kernel, layer, how) for how in CP_CONVOLUTION}
    if format_of(layer) == "tt":
        ends = [(c.shape[0] if k else 1, c.shape[-1] if k < 3 else 1) for k, c in enumerate(value.cores)]
        cores = [copied(c.reshape(a, -1, b)) for c, (a, b) in zip(value.cores, ends, strict=True)]
        kernel = tltorch.TTTensor(cores)
        return {f"{NAME}, {how}": convolution(kernel, layer, how) for how in LINEAR}
    outputs, inputs, *taps = value.matrices
    if len(taps) == 1:  # the mode of all taps is whole
        taps = [torch.eye(n) for n in size]
    core = copied(value.core.reshape(*value.core.shape[:2], *(t.shape[1] for t in taps)))
    kernel = tltorch.TuckerTensor(core, [copied(f) for f in (outputs, inputs, *taps)])
    return {f"{NAME}, {how}": convolution(kernel, layer, how) for how in LINEAR}


KINDS = {"lowrank": "cp", "cp": "cp", "tucker": "tucker", "tt": "blocktt"}
"""Its names of our formats."""


def convolution(kernel: nn.Module, layer: FactorizedConv, how: str) -> nn.Module:
    """A convolution with a bias and this kernel."""
    made = tltorch.FactorizedConv(
        layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding[0], bias=True,
        has_bias=True, factorization=kernel, implementation=how,
    )  # fmt: skip
    return with_bias(made, layer)


def matrix(layer: FactorizedLinear | FactorizedEmbedding, sizes: tuple[tuple[int, ...], ...]) -> nn.Module:
    """The factors of a layer as a tensorized matrix."""
    value, format = layer.weight.value, format_of(layer)
    if format == "tt":
        ends = [1, *(core.shape[-1] for core in value.cores[:-1]), 1]
        shapes = zip(ends[:-1], *sizes, ends[1:], strict=True)
        cores = [copied(c.reshape(s)) for c, s in zip(value.cores, shapes, strict=True)]
        return tltorch.BlockTT(cores, sizes, tuple(ends))
    held = (value.left, value.right.T) if format == "lowrank" else value.matrices
    factors = [copied(f) for f in held]
    if format == "tucker":
        return tltorch.TuckerTensorized(copied(value.core), factors, sizes, tuple(value.core.shape))
    rank = factors[0].shape[1]
    return tltorch.CPTensorized(nn.Parameter(torch.ones(rank)), factors, sizes, rank)


def format_of(layer: nn.Module) -> str:
    """The name of the format of a layer."""
    return formats.name_of(layer.weight.format)


def splits(layer: FactorizedLinear | FactorizedEmbedding) -> tuple[tuple[int, ...], ...]:
    """Sizes of the axes of either side of the weight."""
    return tuple(layer.layout.extent(group) for group in layer.layout.weight)


def separated(taps: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Factors of height and width of which `taps` is the Khatri-Rao product."""
    left, values, right = torch.linalg.svd(taps.detach().T.unflatten(1, tuple(size)), full_matrices=False)
    root = values[:, 0].sqrt().unsqueeze(1)
    return (left[:, :, 0] * root).T, (right[:, 0] * root).T


def copied(tensor: Tensor) -> nn.Parameter:
    """A contiguous parameter with these values."""
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format))


def with_bias(made: nn.Module, layer: nn.Module) -> nn.Module:
    """`made` with the bias of `layer`."""
    made.bias = copied(layer.bias)
    return made
