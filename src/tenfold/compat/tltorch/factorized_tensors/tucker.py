"""Tensors in Tucker form."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_tensors.fitting import fitted
from tenfold.compat.tltorch.factorized_tensors.ranks import tucker_rank
from tenfold.compat.tltorch.factorized_tensors.widened import STD, Widened, empty, inserted, position
from tenfold.compat.tltorch.utils.parameter_list import FactorList
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes
from tenfold.formats import Tucker


class TuckerTensor(Widened, name="Tucker"):
    """A `core` over the ranks, and a matrix (size, rank) for each mode in `factors`."""

    core: Tensor
    factors: FactorList

    def __init__(
        self,
        core: Tensor,
        factors: Sequence[Tensor],
        shape: Sequence[int] | None = None,
        rank: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if tuple(f.shape[-1] for f in factors) != tuple(core.shape):
            shapes = [tuple(f.shape) for f in factors]
            raise ShapeError(f"a core of shape {tuple(core.shape)} came with factors of shapes {shapes}.")
        self.shape = torch.Size(f.shape[0] for f in factors)
        self.rank, self.order = tuple(core.shape), len(factors)
        self._hold("core", core)
        self.factors = self._list(factors)

    @classmethod
    def new(  # type: ignore[override]
        cls,
        shape: Sequence[int],
        rank: Any = "same",
        *,
        fixed_rank_modes: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random core and factors; modes in `fixed_rank_modes` have their size as rank."""
        r = tucker_rank(shape, rank, fixed_rank_modes)
        factors = [empty(pair, device, dtype) for pair in zip(shape, r, strict=True)]
        return cls(empty(r, device, dtype), factors).normal_(0, STD)

    @classmethod
    def from_tensor(  # type: ignore[override]
        cls,
        tensor: Tensor,
        rank: Any = "same",
        fixed_rank_modes: Sequence[int] | None = None,
        **options: Any,
    ) -> Self:
        """Core and orthonormal factors fitted to a dense tensor, in its dtype and on its device."""
        like: dict[str, Any] = {"device": tensor.device, "dtype": tensor.dtype}
        shape = tuple(tensor.shape)
        return cls.new(shape, rank, fixed_rank_modes=fixed_rank_modes, **like)._fit(tensor, options)

    def _fit(self, tensor: Tensor, options: dict[str, Any]) -> Self:
        value = fitted("Tucker", tensor, tucker_rank(self.tensor_shape, self.rank), options)
        return self._put(value.factors)

    @property
    def decomposition(self) -> tuple[Tensor, FactorList]:
        """Core and factors."""
        return self.core, self.factors

    def _arrays(self) -> list[Tensor]:
        return [self.core, *self.factors]

    def _graph(self) -> tuple[Axes, ...]:
        return Tucker.axes(len(self.factors))

    def _over(self, arrays: Sequence[Tensor]) -> Self:
        return type(self)(arrays[0], list(arrays[1:]))

    def _taken(self, items: Sequence[Any]) -> Any:
        core = self.core
        kept: list[Tensor] = []
        for k, (factor, item) in reversed(list(enumerate(zip(self.factors, items, strict=True)))):
            rows = factor[item]
            if rows.ndim == 1:
                core = torch.tensordot(core, rows, ([k], [0]))
            else:
                kept.insert(0, rows)
        return self._over([core, *kept]) if kept else core

    def transduct(self, new_dim: int, mode: int = 0, new_factor: Tensor | None = None) -> Self:
        """A new mode of rank 1 at position `mode`, in place; the tensor is repeated along it."""
        like, mode = self.factors[0], position(self.order, mode)
        rows = like.new_ones(new_dim, 1) if new_factor is None else new_factor.to(like)
        if rows.shape != (new_dim, 1):
            raise ShapeError(
                f"new_factor has shape {tuple(rows.shape)}.", f"Give ({new_dim}, 1): the rank is 1."
            )
        self.factors = inserted(self, mode, rows)
        core, trained = self.core.detach().unsqueeze(mode), self.core.requires_grad
        del self.core
        self._hold("core", nn.Parameter(core, trained))
        self.rank = tuple(core.shape)
        self.shape = torch.Size((*self.shape[:mode], new_dim, *self.shape[mode:]))
        self.order += 1
        return self
