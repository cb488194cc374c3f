"""Modules that hold copies of factors, for the chains that are written by hand."""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

Holder = TypeVar("Holder", nn.Linear, nn.Conv2d)
Chains = dict[str, nn.Module]
"""The chains for one layer by name; the fastest is what the layer is compared with."""


def own(tensor: Tensor) -> nn.Parameter:
    """A contiguous parameter with these values."""
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format))


def owned(tensors: Iterable[Tensor]) -> nn.ParameterList:
    """A contiguous parameter for each tensor."""
    return nn.ParameterList([own(t) for t in tensors])


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """An `nn.Linear` that holds a copy of this weight."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    return holding(made, weight, bias)


def convolution(
    kernel: Tensor, bias: Tensor | None = None, padding: int | tuple[int, ...] = 0, groups: int = 1
) -> nn.Conv2d:
    """An `nn.Conv2d` that holds a copy of this kernel."""
    outputs, per_group, *size = kernel.shape
    made = nn.Conv2d(
        per_group * groups,
        outputs,
        size,
        padding=padding,
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    return holding(made, kernel, bias)


def holding(module: Holder, weight: Tensor, bias: Tensor | None) -> Holder:
    """`module` with these values in its parameters."""
    module.weight, module.bias = own(weight), None if bias is None else own(bias)  # type: ignore[assignment]
    return module


def stacked(matrix: Tensor, x: Tensor) -> Tensor:
    """`matrix @ x` for x of (n, k, columns): a stack of one matrix, as `@` would copy x to turn its axes."""
    return torch.bmm(matrix.expand(len(x), -1, -1), x)


def khatri_rao(*factors: Tensor) -> Tensor:
    """(a, r), (b, r), ... -> (a b ..., r)."""
    product = factors[0]
    for f in factors[1:]:
        product = (product.unsqueeze(1) * f.unsqueeze(0)).flatten(0, 1)
    return product


def row_wise(*factors: Tensor) -> Tensor:
    """(r, a), (r, b) -> (r, a b)."""
    product = factors[0]
    for f in factors[1:]:
        product = (product.unsqueeze(2) * f.unsqueeze(1)).flatten(1)
    return product
