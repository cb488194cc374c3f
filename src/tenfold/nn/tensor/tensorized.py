"""Matrices, and stacks of them, held as tensors of higher order."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from tenfold.core.errors import ShapeError
from tenfold.core.layout import Groups, Layout
from tenfold.core.network import Axes
from tenfold.formats import Format, Ranks, formats
from tenfold.formats.graphs import graph_for
from tenfold.nn.tensor.factorized import FactorizedTensor

Nested = Sequence[int | Sequence[int]]
"""Sizes of axes; where there are several in the place of one, they are its digits: (5, (4, 3), (2, 7))."""


class TensorizedTensor(FactorizedTensor):
    """A matrix whose rows and columns are split into digits, or a stack of such matrices, in any format.

    The shape is written with the digits of rows and columns in brackets: ((4, 4), (3, 7)) is a matrix of 16
    rows and 21 columns; what comes before them, (5, (4, 4), (3, 7)), numbers the matrices of a stack. Which
    digits make a mode of the tensor is the layout; by default it is that of the format, see
    `tensorized_layout`: "tt" is the TT-matrix (block TT), "cp" and "tucker" have a mode for every digit.

    It is indexed, multiplied and added as the matrix, and stays factorized: rows and columns are looked up
    digit by digit. `x @ matrix` runs factor by factor.

    Source: Novikov et al. 2015, arXiv:1509.06569; TensorLy-Torch (Kossaifi et al.).

    >>> x = TensorizedTensor.new(((4, 4), (3, 7)), 2, "tt")
    >>> x.shape, x.tensorized_shape, (x @ torch.ones(21, 5)).shape
    (torch.Size([16, 21]), ((4, 4), (3, 7)), torch.Size([16, 5]))
    >>> x[[0, 5], :], str(x.layout)
    (FactorizedView(General, shape=(2, 21), ranks={'R0': 2}),
     '(o0=4 o1=4) (i0=3 i1=7) -> (o0 i0) (o1 i1)')
    """

    @classmethod
    def new(
        cls,
        shape: Sequence[Any],
        rank: Ranks,
        factorization: str,
        *,
        layout: str | Layout | None = None,
        std: float = 0.02,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random factors; the entries of the matrices have deviation `std`.

        A layout, if given, has the axes of the matrices on its left: "b (o0=4 o1) (i0=3 i1) -> ...".

        Raises:
            UnknownNameError, RankError, ShapeError, LayoutError: for what cannot be.
        """
        chosen = tensorized_layout(shape, formats[factorization]) if layout is None else layout
        sizes = flat_shape(shape)
        return super().new(sizes, rank, factorization, layout=chosen, std=std, device=device, dtype=dtype)

    @classmethod
    def from_matrix(
        cls,
        matrix: Tensor,
        rows: Sequence[int],
        columns: Sequence[int],
        method: Callable[..., Any],
        ranks: Ranks | None = None,
        *,
        layout: str | Layout | None = None,
    ) -> Self:
        """Decompose a matrix, or a stack of them (..., rows, columns).

        `from_matrix(w, (4, 4), (3, 7), TTSVD(), 8)`. The default layout is that of the method's format.

        Raises:
            ShapeError, LayoutError: if the digits do not make up the rows and columns.
        """
        if matrix.ndim < 2:
            raise ShapeError(
                f"a tensor of shape {tuple(matrix.shape)} is no matrix.", "Give two axes or more."
            )
        if layout is None:
            nested = (*matrix.shape[:-2], tuple(rows), tuple(columns))
            layout = tensorized_layout(nested, getattr(method, "format", None))
        return cls.from_tensor(matrix, method, ranks, layout=layout)

    @property
    def tensorized_shape(self) -> tuple[int | tuple[int, ...], ...]:
        """The sizes with the digits of rows and columns in brackets."""
        assert self.layout is not None
        *stack, rows, columns = (self.layout.extent(g) for g in self.layout.weight)
        return (*(s[0] if len(s) == 1 else s for s in stack), rows, columns)

    def to_matrix(self) -> Tensor:
        """The matrices, contracted from the factors: another name of `dense`."""
        return self.dense()


def flat_shape(shape: Nested) -> tuple[int, ...]:
    """The shape of the matrices.

    >>> flat_shape((5, (4, 4), (3, 7)))
    (5, 16, 21)
    """
    return tuple(int(torch.Size(s).numel()) for s in _digits(shape))


def _digits(shape: Nested) -> list[tuple[int, ...]]:
    return [(int(s),) if isinstance(s, int) else tuple(int(n) for n in s) for s in shape]


def tensorized_layout(shape: Nested, kind: type[Format] | None = None) -> Layout:
    """The layout of a tensorized matrix that is usual for a format; axes are called b0..., o0..., i0...

    - pairs, the k-th digit of the rows with that of the columns: trains (TT-matrix), rings, trees, and what
      is not listed below;
    - every digit for itself: CP, Tucker, block terms;
    - first digits against the others: Kronecker sums, so that they are sums of products of two matrices;
    - rows against columns: low rank; slices of low rank for each matrix of a stack, or each first digit of
      the columns: sliced low rank.

    Axes that number the matrices of a stack are modes of their own, where the format has as many as it likes.

    Raises:
        ShapeError: without rows and columns, and for digits that are none.

    >>> from tenfold.formats import TensorTrain, Tucker
    >>> str(tensorized_layout((5, (4, 4), (3, 7)), TensorTrain))
    'b0 (o0=4 o1=4) (i0=3 i1=7) -> b0 (o0 i0) (o1 i1)'
    >>> str(tensorized_layout(((4, 4), (3, 7)), Tucker))
    '(o0=4 o1=4) (i0=3 i1=7) -> o0 o1 i0 i1'
    """
    digits = _digits(shape)
    if len(digits) < 2 or any(not d or min(d) < 1 for d in digits):
        raise ShapeError(
            f"the shape of a tensorized matrix came as {tuple(shape)}.",
            "Give the digits of its rows and columns, such as ((4, 4), (3, 7)), after the sizes of a stack.",
        )
    *stack, rows, columns = _named(digits)
    modes = next(m for m in _choices(stack, rows, columns, kind) if kind is None or _holds(kind, len(m)))
    sizes = {
        a: n for g, d in zip((*stack, rows, columns), digits, strict=True) for a, n in zip(g, d, strict=True)
    }
    return Layout((*stack, rows, columns), modes, tuple(sizes.items()))


def _named(digits: Sequence[Sequence[int]]) -> list[Axes]:
    count = itertools.count()
    stack = [tuple(f"b{next(count)}" for _ in d) for d in digits[:-2]]
    ends = [tuple(f"{letter}{k}" for k in range(len(d))) for letter, d in zip("oi", digits[-2:], strict=True)]
    return [*stack, *ends]


def _choices(stack: Sequence[Axes], rows: Axes, columns: Axes, kind: type[Format] | None) -> list[Groups]:
    """The modes that a format would have, the first that it can have last resorts after them."""
    numbers = tuple(a for g in stack for a in g)
    alone = tuple((a,) for a in numbers)
    pairs = (*alone, *(tuple(a for a in p if a) for p in itertools.zip_longest(rows, columns, fillvalue="")))
    flat = tuple((a,) for a in (*numbers, *rows, *columns))
    matrix = ((*numbers, *rows), columns)
    first: dict[str, Groups] = {
        "cp": flat,
        "tucker": flat,
        "block_term": flat,
        "kronecker": ((*numbers, rows[0]), columns[:1], rows[1:], columns[1:]),
        "lowrank": matrix,
        "sliced_lowrank": (rows, numbers, columns) if numbers else (rows, columns[:1], columns[1:]),
    }
    name = next((n for n in first if kind is not None and formats[n] is kind), "")
    return [*([first[name]] if name else []), pairs, flat, matrix]


def _holds(kind: type[Format], order: int) -> bool:
    try:
        return bool(graph_for(kind, order, {}))
    except ShapeError:
        return False
