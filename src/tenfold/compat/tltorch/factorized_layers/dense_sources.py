"""Factorized convolutions made from dense ones, and from factorized kernels."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_layers.kernel_shapes import (
    factorization_shape_to_kernel_shape,
    kernel_to_tensor,
)
from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.core.errors import ShapeError, UnsupportedError


class DenseSources(nn.Module):
    """The class methods of a factorized convolution that take what exists already."""

    @classmethod
    def from_factorization(
        cls,
        factorization: FactorizedTensor,
        implementation: str = "factorized",
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        bias: Tensor | None = None,
        n_layers: int | tuple[int, ...] = 1,
    ) -> Self:
        """The convolution with a factorized tensor as its kernel, and a copy of a bias."""
        count = 0 if n_layers == 1 else len(n_layers) if isinstance(n_layers, Sequence) else 1
        out, inner, *taps = factorization_shape_to_kernel_shape(
            factorization.name, factorization.shape[count:]
        )
        made: Any = cls(
            inner, out, taps, None, stride, padding, dilation, bias is not None, None, n_layers,
            factorization, factorization.rank, implementation,
        )  # fmt: skip
        if bias is not None and made.bias is not None:
            made.bias = nn.Parameter(bias.detach().clone().reshape(made.bias.shape))
        return made

    @classmethod
    def from_conv(
        cls,
        conv_layer: nn.Module,
        rank: Any = "same",
        implementation: str = "factorized",
        factorization: str = "CP",
        decompose_weights: bool = True,
        decomposition_kwargs: Mapping[str, Any] | None = None,
        fixed_rank_modes: str | Sequence[int] | None = None,
    ) -> Self:
        """The convolution whose kernel is fitted to a dense one, or random with `decompose_weights=False`.

        All settings are taken over: each axis' stride, padding as numbers or "same", dilation, groups, the
        padding mode, device and dtype, and a copy of the bias.
        """
        made: Any = cls._like([conv_layer], 1, rank, implementation, factorization, fixed_rank_modes)
        if decompose_weights:
            kernel = kernel_to_tensor(factorization, conv_layer.weight.detach())  # type: ignore[operator]
            made.weight.init_from_tensor(kernel, **(decomposition_kwargs or {}))
        made.train(conv_layer.training)
        return made

    @classmethod
    def from_conv_list(
        cls,
        conv_list: Sequence[nn.Module],
        rank: Any = "same",
        implementation: str = "factorized",
        factorization: str = "cp",
        decompose_weights: bool = True,
        decomposition_kwargs: Mapping[str, Any] | None = None,
        fixed_rank_modes: str | Sequence[int] | None = None,
    ) -> Self:
        """Several convolutions whose kernels are fitted by one tensor, each with settings of its own."""
        made: Any = cls._like(
            conv_list, len(conv_list), rank, implementation, factorization, fixed_rank_modes
        )
        if decompose_weights:
            stack = torch.stack([conv.weight.detach() for conv in conv_list])  # type: ignore[operator]
            kernels = kernel_to_tensor(factorization, stack, 1).reshape(made.weight.shape)
            made.weight.init_from_tensor(kernels, **(decomposition_kwargs or {}))
        return made

    @classmethod
    def _like(
        cls, convs: Sequence[Any], count: int, rank: Any, implementation: str, factorization: str, fixed: Any
    ) -> Self:
        """A layer with the settings and the biases of dense ones."""
        for conv in convs:
            if type(conv) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
                raise UnsupportedError(
                    f"a {type(conv).__name__} came.", "Give an nn.Conv1d, 2d or 3d; others: tenfold.nn."
                )
        first = convs[0]
        if len({(tuple(c.weight.shape), c.groups, c.padding_mode) for c in convs}) != 1:
            raise ShapeError(
                f"{count} convolutions of several kinds came.", "Give one shape, groups and padding mode."
            )
        made: Any = cls(
            first.in_channels, first.out_channels, first.kernel_size, None, first.stride, first.padding,
            first.dilation, any(c.bias is not None for c in convs), None, count, factorization, rank,
            implementation, fixed, first.weight.device, first.weight.dtype, groups=first.groups,
            padding_mode=first.padding_mode,
        )  # fmt: skip
        for index, conv in zip(product(*map(range, made.layers_shape)), convs, strict=True):
            made.has_bias[index] = False
            made.set(index or 0, conv.stride, conv.padding, conv.dilation, conv.bias)
        return made
