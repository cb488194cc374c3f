"""The factorizations of a tensorized matrix: none, CP, Tucker, block tensor train."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.block_tt import BlockTT
from tenfold.compat.tltorch.factorized_tensors.cp import CPTensor
from tenfold.compat.tltorch.factorized_tensors.dense import DenseTensor
from tenfold.compat.tltorch.factorized_tensors.indexing import digits, items_of, listed
from tenfold.compat.tltorch.factorized_tensors.ranks import cp_rank, tucker_rank
from tenfold.compat.tltorch.factorized_tensors.tensorized import (
    WHOLE,
    TensorizedTensor,
    flat,
    matrix_shape,
    sides_of,
    split_sides,
)
from tenfold.compat.tltorch.factorized_tensors.tucker import TuckerTensor
from tenfold.compat.tltorch.factorized_tensors.widened import empty, refuse_fixed
from tenfold.core.network import Axes, mode


class DenseTensorized(TensorizedTensor, DenseTensor, name="Dense"):
    """A matrix that is not factorized, or a stack of them; `tensor` has the shape of the matrix."""

    def __init__(self, tensor: Tensor, tensorized_shape: Sequence[Any], rank: Any = None) -> None:
        sides = sides_of(tensorized_shape)
        matrix = tensor.detach() if isinstance(tensor, torch.nn.Parameter) else tensor
        matrix = matrix.reshape(matrix_shape(sides))
        if isinstance(tensor, torch.nn.Parameter):
            matrix = torch.nn.Parameter(matrix, tensor.requires_grad)
        DenseTensor.__init__(self, matrix, rank=rank)
        self.tensorized_shape, self.order = sides, len(flat(sides))

    @classmethod
    def new(  # type: ignore[override]
        cls,
        tensorized_shape: Sequence[Any],
        rank: Any = None,
        *,
        fixed_rank_modes: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random entries; there is no rank."""
        refuse_fixed(fixed_rank_modes, "a dense matrix")
        sides = split_sides(tensorized_shape)
        return cls(empty(matrix_shape(sides), device, dtype), sides).normal_(0, 0.02)

    @classmethod
    def from_tensor(cls, tensor: Tensor, tensorized_shape: Sequence[Any], rank: Any = "same") -> Self:  # type: ignore[override]
        """A copy of the tensor, as a parameter."""
        return cls(torch.nn.Parameter(tensor.detach().clone()), tensorized_shape)

    def _fit(self, tensor: Tensor, options: dict[str, Any]) -> Self:
        return DenseTensor._fit(self, tensor.reshape(self.shape), options)

    def sides(self) -> list[Axes]:
        """One mode for each axis."""
        return [(mode(k),) for k in range(self.ndim)]

    def __getitem__(self, indices: Any) -> Any:
        """The dense part that an index selects, each item acting on its own axis."""
        return self._part(items_of(indices, tuple(self.shape)))


class CPTensorized(TensorizedTensor, CPTensor, name="CP"):
    """A matrix whose tensor is a sum of rank-one tensors: `weights` (rank,), and `factors` for all modes."""

    def __init__(
        self,
        weights: Tensor,
        factors: Sequence[Tensor],
        tensorized_shape: Sequence[Any],
        rank: int | None = None,
    ) -> None:
        CPTensor.__init__(self, weights, factors)
        self._tensorize(tensorized_shape)

    @classmethod
    def new(  # type: ignore[override]
        cls,
        tensorized_shape: Sequence[Any],
        rank: Any = "same",
        *,
        fixed_rank_modes: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random factors, weights of 1."""
        refuse_fixed(fixed_rank_modes, "CP")
        sides = split_sides(tensorized_shape)
        r = cp_rank(flat(sides), rank)
        factors = [empty((n, r), device, dtype) for n in flat(sides)]
        return cls(empty((r,), device, dtype), factors, sides).normal_(0, 0.02)

    @classmethod
    def from_tensor(  # type: ignore[override]
        cls, tensor: Tensor, tensorized_shape: Sequence[Any], rank: Any = "same", **options: Any
    ) -> Self:
        """Components fitted to a tensor with all the modes."""
        made = cls.new(tensorized_shape, rank, device=tensor.device, dtype=tensor.dtype)
        return made.init_from_tensor(tensor, **options)

    def _over(self, arrays: Sequence[Tensor]) -> Self:
        return type(self)(arrays[0], list(arrays[1:]), self.tensorized_shape)

    def _part(self, items: Sequence[Any]) -> Any:
        """Rows of a side are one factor, the product of its modes' rows; an int goes into the weights."""
        weights, feed = self.weights, iter(self.factors)
        kept: list[Tensor] = []
        sides: list[Any] = []
        for item, side, size in zip(items, self.tensorized_shape, self.shape, strict=True):
            own = [next(feed) for _ in range(1 if isinstance(side, int) else len(side))]
            if isinstance(item, slice) and item == WHOLE:
                kept, sides = [*kept, *own], [*sides, side]
                continue
            picked = item if isinstance(item, int) else listed(item, size, weights.device)
            lengths = (side,) if isinstance(side, int) else side
            rows = own[0][digits(picked, lengths)[0]]
            for factor, digit in zip(own[1:], digits(picked, lengths)[1:], strict=True):
                rows = rows * factor[digit]
            if isinstance(picked, int):
                weights = weights * rows
            else:
                kept, sides = [*kept, rows], [*sides, len(rows)]
        if not kept:
            return weights.sum()
        return type(self)(weights, kept, sides)

    def _matrices(self, items: Sequence[Any]) -> Any:
        return CPTensorized._part(self, items)


class TuckerTensorized(TensorizedTensor, TuckerTensor, name="Tucker"):
    """A matrix whose tensor is in Tucker form: a `core`, and `factors` for all modes."""

    def __init__(
        self,
        core: Tensor,
        factors: Sequence[Tensor],
        tensorized_shape: Sequence[Any],
        rank: Sequence[int] | None = None,
    ) -> None:
        TuckerTensor.__init__(self, core, factors)
        self._tensorize(tensorized_shape)

    @classmethod
    def new(  # type: ignore[override]
        cls,
        tensorized_shape: Sequence[Any],
        rank: Any = "same",
        *,
        fixed_rank_modes: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random core and factors; modes in `fixed_rank_modes`, of all modes, have their size as rank."""
        sides = split_sides(tensorized_shape)
        r = tucker_rank(flat(sides), rank, fixed_rank_modes)
        factors = [empty(pair, device, dtype) for pair in zip(flat(sides), r, strict=True)]
        return cls(empty(r, device, dtype), factors, sides).normal_(0, 0.02)

    @classmethod
    def from_tensor(  # type: ignore[override]
        cls,
        tensor: Tensor,
        tensorized_shape: Sequence[Any],
        rank: Any = "same",
        fixed_rank_modes: Sequence[int] | None = None,
        **options: Any,
    ) -> Self:
        """Core and factors fitted to a tensor with all the modes."""
        made = cls.new(
            tensorized_shape,
            rank,
            fixed_rank_modes=fixed_rank_modes,
            device=tensor.device,
            dtype=tensor.dtype,
        )
        return made.init_from_tensor(tensor, **options)

    def _over(self, arrays: Sequence[Tensor]) -> Self:
        return type(self)(arrays[0], list(arrays[1:]), self.tensorized_shape)

    def _matrices(self, items: Sequence[Any]) -> Any:
        core, kept, sides = self.core, list(self.factors), list(self.tensorized_shape)
        for k, (item, modes) in reversed(list(enumerate(zip(items, self.sides(), strict=True)))):
            at = int(modes[0][1:])
            if isinstance(item, int):
                core = torch.tensordot(core, kept.pop(at)[item], ([at], [0]))
                del sides[k]
            elif isinstance(sides[k], int):
                kept[at] = kept[at][item]
                sides[k] = len(kept[at])
        return type(self)(core, kept, sides)


__all__ = ["BlockTT", "CPTensorized", "DenseTensorized", "TensorizedTensor", "TuckerTensorized"]
