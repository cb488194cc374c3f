"""Tensor trains."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.fitting import fitted, refuse_unknown
from tenfold.compat.tltorch.factorized_tensors.ranks import tt_rank
from tenfold.compat.tltorch.factorized_tensors.widened import (
    STD,
    Widened,
    empty,
    inserted,
    position,
    refuse_fixed,
)
from tenfold.compat.tltorch.utils.parameter_list import FactorList
from tenfold.core.errors import RankError
from tenfold.core.network import Axes
from tenfold.formats import TensorTrain


class TTTensor(Widened, name="TT"):
    """A tensor train: cores (left rank, size, right rank) in `factors`, the outer ranks being 1."""

    factors: FactorList

    def __init__(
        self,
        factors: Sequence[Tensor],
        shape: Sequence[int] | None = None,
        rank: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        ranks = (*(f.shape[0] for f in factors), factors[-1].shape[-1])
        if (ranks[0], ranks[-1]) != (1, 1) or ranks[1:] != tuple(f.shape[-1] for f in factors):
            raise RankError(
                f"cores of shapes {[tuple(f.shape) for f in factors]} do not make a train.",
                "Neighbours share a rank, and both ends are 1.",
            )
        self.shape = torch.Size(f.shape[1] for f in factors)
        self.rank, self.order = ranks, len(factors)
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
        """Random cores."""
        refuse_fixed(fixed_rank_modes, "a tensor train")
        r = tt_rank(shape, rank)
        return cls([empty(s, device, dtype) for s in zip(r, shape, r[1:], strict=False)]).normal_(0, STD)

    @classmethod
    def from_tensor(cls, tensor: Tensor, rank: Any = "same", **options: Any) -> Self:  # type: ignore[override]
        """Cores fitted to a dense tensor, in its dtype and on its device."""
        refuse_unknown("TT", options)
        like: dict[str, Any] = {"device": tensor.device, "dtype": tensor.dtype}
        return cls.new(tuple(tensor.shape), rank, **like)._fit(tensor, options)

    def _fit(self, tensor: Tensor, options: dict[str, Any]) -> Self:
        if self.order == 1:
            return self._put([tensor])
        value = fitted("TT", tensor, tt_rank(self.tensor_shape, self.rank)[1:-1], options)
        return self._put(value.factors)

    def _arrays(self) -> list[Tensor]:
        return ends_off(list(self.factors))

    def _graph(self) -> tuple[Axes, ...]:
        return TensorTrain.axes(len(self.factors))

    def _over(self, arrays: Sequence[Tensor]) -> Self:
        return type(self)(ends_on(arrays))

    def _taken(self, items: Sequence[Any]) -> Any:
        kept: list[Tensor] = []
        waiting: Tensor | None = None
        for core, item in zip(self.factors, items, strict=True):
            part = core[:, item]
            if waiting is not None:
                part = torch.tensordot(waiting, part, 1)
            waiting = part if part.ndim == 2 else None
            if waiting is None:
                kept.append(part)
        if waiting is None:
            return type(self)(kept)
        if not kept:
            return waiting.reshape(())
        return type(self)([*kept[:-1], torch.tensordot(kept[-1], waiting, 1)])

    def transduct(self, new_dim: int, mode: int = 0, new_factor: Tensor | None = None) -> Self:
        """A new mode of size `new_dim` at position `mode`, in place; the tensor is repeated along it.

        `new_factor` (rank, new_dim, rank) says something else than an identity for each of its entries.
        """
        like, mode = self.factors[0], position(self.order, mode)
        r = self.rank[mode]
        core = torch.eye(r).unsqueeze(1).repeat(1, new_dim, 1) if new_factor is None else new_factor
        self.factors = inserted(self, mode, core.to(like))
        self.rank = (*self.rank[: mode + 1], *self.rank[mode:])
        self.shape = torch.Size((*self.shape[:mode], new_dim, *self.shape[mode:]))
        self.order += 1
        return self


def ends_off(cores: list[Tensor]) -> list[Tensor]:
    """Cores without the ranks of 1 at both ends, as our trains have them."""
    first, last = cores[0].squeeze(0), cores[-1].squeeze(-1)
    return [first.squeeze(-1)] if len(cores) == 1 else [first, *cores[1:-1], last]


def ends_on(cores: Sequence[Tensor]) -> list[Tensor]:
    """Cores with the ranks of 1 at both ends."""
    if len(cores) == 1:
        return [cores[0].unsqueeze(0).unsqueeze(-1)]
    return [cores[0].unsqueeze(0), *cores[1:-1], cores[-1].unsqueeze(-1)]
