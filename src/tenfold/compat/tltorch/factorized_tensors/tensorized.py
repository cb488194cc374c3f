"""What tensorized matrices share: matrices, or stacks of them, whose sides are split into several modes."""

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.factorized_tensors.indexing import digits, items_of, listed
from tenfold.compat.tltorch.programs import multiplied
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes, Axis, Network, mode
from tenfold.formats.contracting import contracted

Sides = tuple[int | tuple[int, ...], ...]
"""An int is an axis that numbers matrices, a tuple a side that is split into so many modes."""
WHOLE = slice(None)


class TensorizedTensor(FactorizedTensor):
    """A matrix, or a stack of matrices, held as a tensor of higher order in factorized form.

    `tensorized_shape` has an int for each axis that numbers matrices and a tuple for each side, such as
    (5, (4, 4), (3, 7)) for five matrices (16, 21); `shape` is that of the matrices.

    >>> x = TensorizedTensor.new(((4, 4), (3, 2)), rank=2, factorization="BlockTT")
    >>> tuple(x.shape), x.to_matrix().shape, x[3, :].shape, x.rank
    ((16, 6), torch.Size([16, 6]), torch.Size([6]), (1, 2, 1))
    """

    _factorizations: ClassVar[dict[str, type[FactorizedTensor]]] = {}
    tensorized_shape: Sides

    def _tensorize(self, tensorized_shape: Sequence[Any]) -> None:
        """Be a matrix; raises ShapeError if the modes are not those of the sides."""
        sides = sides_of(tensorized_shape)
        if flat(sides) != tuple(self.shape):
            raise ShapeError(
                f"tensorized_shape {sides} came for factors of shape {tuple(self.shape)}.",
                "The sizes in it are those of the modes.",
            )
        self.tensorized_shape, self.shape = sides, matrix_shape(sides)

    @classmethod
    def from_tensor(  # type: ignore[override]
        cls, tensor: Tensor, shape: Sequence[Any], rank: Any, factorization: str = "CP", **options: Any
    ) -> "TensorizedTensor":
        """A tensor with the modes of `shape`, decomposed."""
        found: TensorizedTensor = cls._of(factorization).from_tensor(tensor, shape, rank, **options)
        return found

    @classmethod
    def from_matrix(
        cls,
        matrix: Tensor,
        tensorized_row_shape: Sequence[int],
        tensorized_column_shape: Sequence[int],
        rank: Any,
        factorization: str = "CP",
        **options: Any,
    ) -> "TensorizedTensor":
        """A matrix, or a stack of matrices, split as these shapes say and decomposed."""
        sides = split_sides((*matrix.shape[:-2], tuple(tensorized_row_shape), tuple(tensorized_column_shape)))
        _check_matrix(matrix, matrix_shape(sides))
        kind = cls._of(factorization) if cls is TensorizedTensor else cls
        found: TensorizedTensor = kind.from_tensor(matrix.reshape(flat(sides)), sides, rank, **options)
        return found

    def init_from_matrix(self, matrix: Tensor, **options: Any) -> Self:
        """Fit the factors to a matrix, or a stack of them, in place."""
        _check_matrix(matrix, self.shape)
        fit: Any = self.init_from_tensor
        found: Self = fit(matrix.reshape(self.tensor_shape), **options)
        return found

    def to_matrix(self) -> Tensor:
        """The dense matrix, or the stack of matrices."""
        return self.value.dense().reshape(self.shape)

    def _dense(self) -> Tensor:
        tensor: TensorizedTensor = super().forward()
        return tensor.to_matrix()

    @property
    def tensor_shape(self) -> torch.Size:
        """Sizes of all modes."""
        return torch.Size(flat(self.tensorized_shape))

    def sides(self) -> list[Axes]:
        """The modes of each axis of the matrix."""
        return list(_mode_groups(self.tensorized_shape))

    def _linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor | None:
        if self.ndim != 2:
            return None
        outputs, inputs = self.sides()
        return multiplied(x, self.gated_arrays(), self.network, inputs, outputs, bias)

    def __getitem__(self, indices: Any) -> Any:
        """The part of the matrix that an index selects, each item acting on its own axis.

        CP stays CP, and so does every factorization where the sides are whole; otherwise the result is dense,
        made of the rows and columns asked for alone.
        """
        items = items_of(indices, tuple(self.shape))
        if any(_cuts(item, side) for side, item in zip(self.tensorized_shape, items, strict=True)):
            return self._part(items)
        return self._matrices(items)

    def _part(self, items: Sequence[Any]) -> Any:
        """What items select of the sides; dense."""
        return selected(self._arrays(), self._graph(), self.sides(), self.shape, items)

    def _matrices(self, items: Sequence[Any]) -> Any:
        """What items select of the axes that number matrices, sides being whole."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(shape={tuple(self.shape)}, tensorized_shape={self.tensorized_shape}, "
            f"rank={self.rank})"
        )


def _cuts(item: Any, side: int | tuple[int, ...]) -> bool:
    """Whether an item takes a part of a side."""
    return isinstance(side, tuple) and not (isinstance(item, slice) and item == WHOLE)


def sides_of(tensorized_shape: Sequence[Any]) -> Sides:
    """A nested shape with ints and tuples of ints, whatever sequences it came in."""
    return tuple(_size(s) if hasattr(s, "__index__") else tuple(map(_size, s)) for s in tensorized_shape)


def split_sides(tensorized_shape: Sequence[Any]) -> Sides:
    """A nested shape; a flat one is that of a vector, a single side."""
    sides = sides_of(tensorized_shape)
    return sides if any(isinstance(s, tuple) for s in sides) else (flat(sides),)


def _size(n: Any) -> int:
    size = operator.index(n)
    if size < 1:
        raise ShapeError(f"a tensorized shape has the size {size}.", "Give sizes of 1 or more.")
    return size


def flat(sides: Sides) -> tuple[int, ...]:
    """The sizes of all modes.

    >>> flat((5, (4, 4), (3, 7))), tuple(matrix_shape((5, (4, 4), (3, 7))))
    ((5, 4, 4, 3, 7), (5, 16, 21))
    """
    return tuple(n for s in sides for n in ((s,) if isinstance(s, int) else s))


def matrix_shape(sides: Sides) -> torch.Size:
    """The shape of the matrix, or of the stack of matrices."""
    return torch.Size(s if isinstance(s, int) else math.prod(s) for s in sides)


def _mode_groups(sides: Sides) -> Iterator[Axes]:
    count = 0
    for side in sides:
        n = 1 if isinstance(side, int) else len(side)
        yield tuple(mode(k) for k in range(count, count + n))
        count += n


def _check_matrix(matrix: Tensor, shape: Sequence[int]) -> None:
    if tuple(matrix.shape) != tuple(shape):
        raise ShapeError(
            f"a matrix of shape {tuple(matrix.shape)} came for the tensorized shape of {tuple(shape)}.",
            "Give sizes whose products are those of the matrix.",
        )


def selected(
    arrays: Sequence[Tensor],
    graph: Sequence[Axes],
    sides: Sequence[Axes],
    shape: Sequence[int],
    items: Sequence[Any],
) -> Tensor:
    """The dense part of a matrix that items select, contracted from the rows of each factor alone.

    An int takes its digits out of the factors; a vector puts one axis, of all its entries, in their place.
    """
    tensors, axes = list(arrays), [list(a) for a in graph]
    outputs: list[Axis] = []
    out_shape: list[int] = []
    for k, (item, side, size) in enumerate(zip(items, sides, shape, strict=True)):
        if isinstance(item, slice) and item == WHOLE:
            outputs += side
            out_shape.append(size)
            continue
        picked = item if isinstance(item, int) else listed(item, size, tensors[0].device)
        lengths = [_size_of(m, tensors, axes) for m in side]
        for m, digit in zip(side, digits(picked, lengths), strict=True):
            _pick(tensors, axes, m, digit, f"n{k}")
        if not isinstance(picked, int):
            outputs.append(f"n{k}")
            out_shape.append(len(picked))
    sizes = {a: n for t, own in zip(tensors, axes, strict=True) for a, n in zip(own, t.shape, strict=True)}
    network = Network(tuple(tuple(a) for a in axes), tuple(outputs), tuple(sizes.items()))
    found: Tensor = contracted(network, tensors, tuple(outputs))
    return found.reshape(out_shape)


def _size_of(m: Axis, tensors: Sequence[Tensor], axes: Sequence[list[Axis]]) -> int:
    return next(int(t.shape[a.index(m)]) for t, a in zip(tensors, axes, strict=True) if m in a)


def _pick(tensors: list[Tensor], axes: list[list[Axis]], m: Axis, digit: Any, new: Axis) -> None:
    """Take the entries `digit` of mode m out of every factor; a vector of them becomes the axis `new`."""
    for k, own in enumerate(axes):
        if m not in own:
            continue
        at = own.index(m)
        if isinstance(digit, int):
            tensors[k] = tensors[k].select(at, digit)
            del own[at]
        elif new not in own:
            tensors[k] = tensors[k].index_select(at, digit)
            own[at] = new
        else:
            tensors[k], axes[k] = _paired(tensors[k], own, at, digit, new)


def _paired(tensor: Tensor, own: list[Axis], at: int, digit: Tensor, new: Axis) -> tuple[Tensor, list[Axis]]:
    """A factor that has the axis `new` already: entry n of it goes with entry digit[n] of axis `at`."""
    order = [own.index(new), at, *(k for k, a in enumerate(own) if k not in (at, own.index(new)))]
    tensor = tensor.permute(order)[torch.arange(len(digit), device=digit.device), digit]
    return tensor, [new, *(own[k] for k in order[2:])]
