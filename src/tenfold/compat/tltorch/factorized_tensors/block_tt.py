"""Tensorized matrices as block tensor trains, known as TT-matrix and matrix product operator."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.fitting import fitted, refuse_unknown
from tenfold.compat.tltorch.factorized_tensors.ranks import tt_rank
from tenfold.compat.tltorch.factorized_tensors.tensorized import (
    Sides,
    TensorizedTensor,
    matrix_shape,
    sides_of,
    split_sides,
)
from tenfold.compat.tltorch.factorized_tensors.tt import ends_off, ends_on
from tenfold.compat.tltorch.factorized_tensors.widened import Widened, empty, refuse_fixed
from tenfold.compat.tltorch.utils.parameter_list import FactorList
from tenfold.core.errors import RankError, ShapeError
from tenfold.core.network import Axes, bond


class BlockTT(TensorizedTensor, Widened, name="BlockTT"):
    """A train of cores (left rank, *matrices, row size, column size, right rank), the outer ranks being 1.

    Axes that number matrices are in every core, so that each matrix is a train of its own, of the same ranks.

    >>> x = BlockTT.new((3, (4, 2), (5, 2)), rank=2)
    >>> [tuple(f.shape) for f in x.factors], x.to_matrix().shape
    ([(1, 3, 4, 5, 2), (2, 3, 2, 2, 1)], torch.Size([3, 8, 10]))
    """

    factors: FactorList

    def __init__(
        self, factors: Sequence[Tensor], tensorized_shape: Sequence[Any], rank: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        sides = sides_of(tensorized_shape)
        ranks = (*(f.shape[0] for f in factors), factors[-1].shape[-1])
        wanted = [(a, *core, b) for core, (a, b) in zip(cores_of(sides), pairwise(ranks), strict=False)]
        if (ranks[0], ranks[-1]) != (1, 1) or wanted != [tuple(f.shape) for f in factors]:
            raise RankError(
                f"cores of shapes {[tuple(f.shape) for f in factors]} came for {sides}.",
                f"With these ranks they have the shapes {wanted}, and both ends are 1.",
            )
        self.tensorized_shape, self.shape = sides, matrix_shape(sides)
        self.rank, self.order = ranks, len(sides)
        self.factors = self._list(factors)

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
        """Random cores."""
        refuse_fixed(fixed_rank_modes, "a block tensor train")
        sides = split_sides(tensorized_shape)
        r = tt_rank(merged(sides), rank)
        shapes = [(a, *core, b) for core, (a, b) in zip(cores_of(sides), pairwise(r), strict=True)]
        return cls([empty(s, device, dtype) for s in shapes], sides).normal_(0, 0.02)

    @classmethod
    def from_tensor(  # type: ignore[override]
        cls, tensor: Tensor, tensorized_shape: Sequence[Any], rank: Any = "same", **options: Any
    ) -> Self:
        """Cores fitted to a tensor with all the modes, or to a stack of them, each by itself."""
        refuse_unknown("TT", options)
        made = cls.new(tensorized_shape, rank, device=tensor.device, dtype=tensor.dtype)
        return made.init_from_tensor(tensor, **options)

    def _fit(self, tensor: Tensor, options: dict[str, Any]) -> Self:
        sides = self.tensorized_shape
        shape = merged(sides)
        order = [int(a[1:]) for a in (*self._stack(), *self._pairs())]
        stack = tensor.permute(order).reshape(-1, *shape)
        ranks = tt_rank(shape, self.rank)
        fits = [self._cores(each, ranks, options) for each in stack]
        ends = zip(zip(*fits, strict=True), cores_of(sides), pairwise(ranks), strict=True)
        cores = [torch.stack(each, 1).reshape(a, *core, b) for each, core, (a, b) in ends]
        return self._put(ends_off(cores))

    def _cores(self, tensor: Tensor, ranks: Sequence[int], options: dict[str, Any]) -> list[Tensor]:
        if tensor.ndim == 1:
            return [tensor.reshape(1, -1, 1)]
        return ends_on(fitted("TT", tensor, list(ranks[1:-1]), options).factors)

    def _stack(self) -> Axes:
        """The modes that number matrices."""
        pairs = zip(self.tensorized_shape, self.sides(), strict=True)
        return tuple(modes[0] for side, modes in pairs if isinstance(side, int))

    def _pairs(self) -> Axes:
        """The modes of all sides, those of each core together."""
        pairs = zip(self.tensorized_shape, self.sides(), strict=True)
        split = [modes for side, modes in pairs if not isinstance(side, int)]
        return tuple(m for each in zip(*split, strict=True) for m in each)

    def _arrays(self) -> list[Tensor]:
        return ends_off(list(self.factors))

    def _graph(self) -> tuple[Axes, ...]:
        count, sides = len(self.factors), self.sides()
        split = [isinstance(side, tuple) for side in self.tensorized_shape]
        bonds = [(), *((bond(k),) for k in range(1, count)), ()]
        return tuple(
            (*bonds[k], *(m[k] if s else m[0] for m, s in zip(sides, split, strict=True)), *bonds[k + 1])
            for k in range(count)
        )

    def _over(self, arrays: Sequence[Tensor]) -> Self:
        return type(self)(ends_on(arrays), self.tensorized_shape)

    def _matrices(self, items: Sequence[Any]) -> Any:
        cores, sides = list(self.factors), list(self.tensorized_shape)
        for k, item in reversed(list(enumerate(items))):
            if not isinstance(sides[k], int):
                continue
            cores = [core[(slice(None),) * (k + 1) + (item,)] for core in cores]
            if isinstance(item, int):
                del sides[k]
            else:
                sides[k] = cores[0].shape[k + 1]
        return type(self)(cores, sides)

    def _taken(self, items: Sequence[Any]) -> Any:
        return self._part(items)


def cores_of(sides: Sides) -> list[tuple[int, ...]]:
    """The sizes of each core between its ranks.

    >>> cores_of((3, (4, 2), (5, 2))), merged((3, (4, 2), (5, 2)))
    ([(3, 4, 5), (3, 2, 2)], (20, 4))
    """
    counts = {len(s) for s in sides if isinstance(s, tuple)}
    if len(counts) != 1:
        raise ShapeError(
            f"the sides of {sides} are split into {sorted(counts)} sizes.",
            "A block tensor train has as many row as column sizes; fill up with sizes of 1.",
        )
    return [tuple(s if isinstance(s, int) else s[k] for s in sides) for k in range(counts.pop())]


def merged(sides: Sides) -> tuple[int, ...]:
    """The sizes of the train behind each matrix, rows and columns of a core in one."""
    split = tuple(s for s in sides if isinstance(s, tuple))
    return tuple(math.prod(core) for core in cores_of(split))
