"""How the laws of layers call a layer: with inputs for batches of several sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Call:
    """Inputs of a layer: `make(n)` gives those for `n` times the smallest batch, always the same numbers.

    `axes` says which axis of each input is the batch, and `settings` are further arguments.

    >>> call = Call.of(torch.ones(3, 6))
    >>> [x.shape for x in call.inputs(2)]
    [torch.Size([6, 6])]
    """

    make: Callable[[int], Inputs]
    axes: tuple[int, ...] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(x: "Tensor | Call") -> "Call":
        """The call with one input, whose first axis is the batch; larger batches repeat it."""
        if isinstance(x, Call):
            return x
        return Call(lambda n: (torch.cat([x] * n),))

    def inputs(self, times: int = 1, dtype: torch.dtype | None = None) -> Inputs:
        """The inputs, those of floating point in `dtype`; for a complex one with an imaginary part."""
        return tuple(cast(x, dtype) for x in self.make(times))

    def __call__(self, layer: Callable[..., Any], times: int = 1, dtype: torch.dtype | None = None) -> Any:
        """What the layer returns."""
        return layer(*self.inputs(times, dtype), **self.settings)


def cast(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Inputs that are no indices in another dtype."""
    if dtype is None or not (x.is_floating_point() or x.is_complex()):
        return x
    if dtype.is_complex and not x.is_complex():
        return torch.complex(x, x.roll(1, -1)).to(dtype)
    return x.to(dtype)


def results(y: Any) -> list[Tensor]:
    """All tensors that a layer returns.

    >>> [t.shape for t in results((torch.ones(2), (torch.ones(3), None)))]
    [torch.Size([2]), torch.Size([3])]
    """
    return [t for t in pytree.tree_leaves(y) if isinstance(t, Tensor)]


def trained(layer: nn.Module) -> list[Tensor]:
    """The parameters that have a gradient, each once."""
    return [p for p in layer.parameters() if p.requires_grad]


def upstream(y: Any) -> list[Tensor]:
    """Random gradients of what a layer returns, always the same numbers."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) for t in results(y)]


def gradients(y: Any, leaves: list[Tensor]) -> list[Tensor]:
    """The gradients of what a layer returned in the leaves, sparse ones as dense; zeros where there are none.

    Leaves without any influence have zeros: what a dense layer leaves out counts as nothing.
    """
    found = torch.autograd.grad(results(y), leaves, upstream(y), allow_unused=True)
    return [
        torch.zeros_like(leaf) if g is None else g.to_dense() if g.is_sparse else g
        for g, leaf in zip(found, leaves, strict=True)
    ]


def complete(layer: nn.Module) -> str:
    """The layer's name for messages."""
    return f"{type(layer).__name__}({layer.extra_repr()})"
