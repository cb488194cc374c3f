"""Tensors as sums of rank-one tensors."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.fitting import fitted
from tenfold.compat.tltorch.factorized_tensors.ranks import cp_rank
from tenfold.compat.tltorch.factorized_tensors.widened import (
    STD,
    Widened,
    empty,
    inserted,
    position,
    refuse_fixed,
)
from tenfold.compat.tltorch.utils.parameter_list import FactorList
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes
from tenfold.formats import CP


class CPTensor(Widened, name="CP"):
    """A sum of rank-one tensors: `weights` (rank,), and a matrix (size, rank) for each mode in `factors`.

    >>> x = CPTensor.new((4, 3, 2), rank=2)
    >>> x.weights.shape, [tuple(f.shape) for f in x.factors], x.rank
    (torch.Size([2]), [(4, 2), (3, 2), (2, 2)], 2)
    """

    weights: Tensor
    factors: FactorList

    def __init__(
        self,
        weights: Tensor,
        factors: Sequence[Tensor],
        shape: Sequence[int] | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        if any(f.shape[-1] != len(weights) or f.ndim != 2 for f in factors):
            shapes = [tuple(f.shape) for f in factors]
            raise ShapeError(
                f"{len(weights)} weights came with factors of shapes {shapes}.", "Give (size, rank)."
            )
        self.shape = torch.Size(f.shape[0] for f in factors)
        self.rank, self.order = len(weights), len(factors)
        self._hold("weights", weights)
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
        """Random factors, weights of 1."""
        refuse_fixed(fixed_rank_modes, "CP")
        r = cp_rank(shape, rank)
        made = cls(empty((r,), device, dtype), [empty((n, r), device, dtype) for n in shape])
        return made.normal_(0, STD)

    @classmethod
    def from_tensor(cls, tensor: Tensor, rank: Any = "same", **options: Any) -> Self:  # type: ignore[override]
        """Components fitted to a dense tensor, in its dtype and on its device; weights are 1."""
        like: dict[str, Any] = {"device": tensor.device, "dtype": tensor.dtype}
        return cls.new(tuple(tensor.shape), rank, **like)._fit(tensor, options)

    def _fit(self, tensor: Tensor, options: dict[str, Any]) -> Self:
        value = fitted("CP", tensor, cp_rank(self.tensor_shape, self.rank), options)
        ones = torch.ones(value.ranks["R"], device=tensor.device)
        return self._put([ones, *value.factors])

    @property
    def decomposition(self) -> tuple[Tensor, FactorList]:
        """Weights and factors."""
        return self.weights, self.factors

    def _arrays(self) -> list[Tensor]:
        return [self.weights, *self.factors]

    def _graph(self) -> tuple[Axes, ...]:
        return (("R",), *CP.axes(len(self.factors)))

    def _over(self, arrays: Sequence[Tensor]) -> Self:
        return type(self)(arrays[0], list(arrays[1:]))

    def _random_factors(self) -> list[Tensor]:
        with torch.no_grad():
            self._arrays()[0].fill_(1)
        return list(self.factors)

    def _taken(self, items: Sequence[Any]) -> Any:
        weights, kept = self.weights, []
        for factor, item in zip(self.factors, items, strict=True):
            rows = factor[item]
            if rows.ndim == 1:
                weights = weights * rows
            else:
                kept.append(rows)
        return self._over([weights, *kept]) if kept else weights.sum()

    def transduct(self, new_dim: int, mode: int = 0, new_factor: Tensor | None = None) -> Self:
        """A new mode of size `new_dim` at position `mode`, in place; the tensor is repeated along it.

        `new_factor` (new_dim, rank) says something else than ones. Factors stay the parameters they are.
        """
        like, mode = self.factors[0], position(self.order, mode)
        rows = like.new_ones(new_dim, self.rank) if new_factor is None else new_factor.to(like)
        self.factors = inserted(self, mode, rows)
        self.shape = torch.Size((*self.shape[:mode], new_dim, *self.shape[mode:]))
        self.order += 1
        return self
