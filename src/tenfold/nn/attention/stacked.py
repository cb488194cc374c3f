"""Weights that `nn.MultiheadAttention` holds as one, while here every projection has its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tenfold.nn.tensor.factorized import FactorizedTensor


class Stacked:
    """The weights or the biases of projections as one tensor for code that reads it, below one another.

    It is read where it is needed, not kept. Functions of torch may be called with it and get `dense()`. The
    fused kernels of torch's transformer layers see by it that these weights are not theirs to run.

    >>> projections = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    >>> stacked = Stacked(projections, "weight")
    >>> stacked.shape, torch.overrides.has_torch_function((stacked,))
    (torch.Size([12, 4]), True)
    """

    def __init__(self, projections: Sequence[nn.Module], name: str) -> None:
        self._projections, self._name = projections, name

    @property
    def parts(self) -> list[Any]:
        """What is stacked: a tensor or a factorized one for each projection."""
        return [getattr(part, self._name) for part in self._projections]

    def dense(self) -> Tensor:
        """The stacked tensor, differentiable in what it is made of."""
        return torch.cat([p.dense() if isinstance(p, FactorizedTensor) else p for p in self.parts])

    @property
    def shape(self) -> torch.Size:
        """Shape of `dense()`."""
        shapes = [p.shape for p in self.parts]
        return torch.Size([sum(s[0] for s in shapes), *shapes[0][1:]])

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parts."""
        dtype: torch.dtype = self.parts[0].dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Device of the parts."""
        device: torch.device = self.parts[0].device
        return device

    @property
    def requires_grad(self) -> bool:
        """Whether any part is trained."""
        return any(p.requires_grad for p in self.parts)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return func(*tree_map(_dense, args), **tree_map(_dense, kwargs or {}))


def _dense(x: Any) -> Any:
    return x.dense() if isinstance(x, Stacked) else x


class StackedView:
    """The names under which code finds the first three projections of an `nn.MultiheadAttention`."""

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    _qkv_same_embed_dim: bool

    @property
    def _first_three(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.q_proj, self.k_proj, self.v_proj

    @property
    def in_proj_weight(self) -> Stacked | None:
        """The weights of q, k and v below one another; None if their sizes differ."""
        return Stacked(self._first_three, "weight") if self._qkv_same_embed_dim else None

    @property
    def in_proj_bias(self) -> Stacked | None:
        """The biases of q, k and v below one another; None if any has none."""
        if any(getattr(part, "bias", None) is None for part in self._first_three):
            return None
        return Stacked(self._first_three, "bias")
