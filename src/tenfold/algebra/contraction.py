"""Contraction of arrays with named axes, two at a time.

The order comes from opt_einsum once for each set of shapes; every step is a reshape and a matrix product,
which every array library has, exports, and differentiates. An axis may stand in any number of arrays.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod

import opt_einsum
from jaxtyping import Num

from tenfold.core.arrays import Array, namespace
from tenfold.core.errors import LayoutError, ShapeError

Axes = tuple[str, ...]
Named = tuple[Array, Axes]


def contract(expression: str, *arrays: Num[Array, "..."]) -> Num[Array, "..."]:
    """The sum over all axes that are not in the output of the product of all arrays.

    An expression lists the axes of each array, separated by spaces as in a layout, then those of the result:
    "o r, r i -> o i". An axis that stands in one array twice takes its diagonal.

    Raises:
        LayoutError: if the expression cannot be read.
        ShapeError: if an axis has two sizes, or an array another number of axes than the expression says.

    >>> import numpy as np
    >>> a, b = np.arange(4.0).reshape(2, 2), np.array([1.0, 10.0])
    >>> contract("i r, r, j r -> i j", a, b, a)
    array([[10., 30.],
           [30., 94.]])
    >>> float(contract("i i ->", a))
    3.0
    """
    inputs, output = parse(expression)
    return contract_axes(arrays, inputs, output)


def parse(expression: str) -> tuple[tuple[Axes, ...], Axes]:
    """The axes of each array and those of the result.

    >>> parse("o r, r i -> o i")
    ((('o', 'r'), ('r', 'i')), ('o', 'i'))
    """
    left, arrow, right = expression.partition("->")
    if not arrow or "->" in right:
        raise LayoutError(
            f"the contraction '{expression}' has not one '->'.",
            "Write the axes of each array, then those of the result: 'o r, r i -> o i'.",
        )
    return tuple(tuple(term.split()) for term in left.split(",")), tuple(right.split())


def contract_axes(
    arrays: Sequence[Num[Array, "..."]], inputs: Sequence[Sequence[str]], output: Sequence[str]
) -> Num[Array, "..."]:
    """`contract` with the axes of each array, and of the result, as sequences of names.

    >>> import numpy as np
    >>> contract_axes([np.ones((2, 3)), np.ones(3)], [("i", "j"), ("j",)], ("i",))
    array([3., 3.])
    """
    named = _named(arrays, inputs)
    _check_sizes(named, output)
    named = [_diagonals(array, axes) for array, axes in named]
    shapes = tuple(tuple(array.shape) for array, _ in named)
    for positions in _path(tuple(axes for _, axes in named), tuple(output), shapes):
        chosen = [named.pop(position) for position in sorted(positions, reverse=True)]
        kept = {axis for _, axes in named for axis in axes} | set(output)
        named.append(_contract_pair(chosen[1], chosen[0], kept) if chosen[1:] else _sum_out(*chosen[0], kept))
    return _arrange(*named[0], tuple(output))


def _named(arrays: Sequence[Array], inputs: Sequence[Sequence[str]]) -> list[Named]:
    if not arrays or len(arrays) != len(inputs):
        raise ShapeError(
            f"got {len(arrays)} arrays for a contraction of {len(inputs)}.",
            "Give one array for each list of axes.",
        )
    for position, (array, axes) in enumerate(zip(arrays, inputs, strict=True)):
        if array.ndim != len(axes):
            raise ShapeError(
                f"array {position} has shape {tuple(array.shape)}, but the axes '{' '.join(axes)}'.",
                "Name each of its axes, separated by spaces.",
            )
    return [(array, tuple(axes)) for array, axes in zip(arrays, inputs, strict=True)]


def _check_sizes(named: Sequence[Named], output: Sequence[str]) -> None:
    sizes: dict[str, int] = {}
    for array, axes in named:
        for axis, size in zip(axes, array.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ShapeError(
                    f"axis '{axis}' has size {sizes[axis]} in one array and {size} in another.",
                    "An axis has one size; give different axes different names.",
                )
    if len(set(output)) != len(output) or not sizes.keys() >= set(output):
        raise LayoutError(
            f"the result cannot have the axes '{' '.join(output)}'.",
            f"Choose from '{' '.join(sizes)}', each one once.",
        )


@lru_cache(maxsize=4096)
def _path(
    inputs: tuple[Axes, ...], output: Axes, shapes: tuple[tuple[int, ...], ...]
) -> tuple[tuple[int, ...], ...]:
    """Which arrays to contract at each step: the fewest operations, as far as opt_einsum searches."""
    symbols: dict[str, str] = {}
    for axis in (axis for axes in inputs for axis in axes):
        symbols.setdefault(axis, opt_einsum.get_symbol(len(symbols)))
    terms = ["".join(symbols[axis] for axis in axes) for axes in (*inputs, output)]
    path, _ = opt_einsum.contract_path(f"{','.join(terms[:-1])}->{terms[-1]}", *shapes, shapes=True)
    return tuple(tuple(positions) for positions in path)


def _contract_pair(a: Named, b: Named, kept: set[str]) -> Named:
    """One step: common axes that are kept are a batch, the other common ones are summed by the product."""
    a, b = _sum_out(*a, kept | set(b[1])), _sum_out(*b, kept | set(a[1]))
    common = [axis for axis in a[1] if axis in b[1]]
    batch, summed = _partition(common, kept)
    rows, columns = ([axis for axis in axes if axis not in common] for _, axes in (a, b))
    left = _grouped(*a, (batch, rows, summed))
    right = _grouped(*b, (batch, summed, columns))
    product = left @ right if summed else left * right
    sizes = dict(zip(a[1] + b[1], (*a[0].shape, *b[0].shape), strict=True))
    axes = (*batch, *rows, *columns)
    return namespace(product).reshape(product, tuple(sizes[axis] for axis in axes)), axes


def _partition(axes: Iterable[str], kept: set[str]) -> tuple[list[str], list[str]]:
    axes = list(axes)
    return [axis for axis in axes if axis in kept], [axis for axis in axes if axis not in kept]


def _grouped(array: Array, axes: Axes, groups: Sequence[Sequence[str]]) -> Array:
    """One axis for each group; none for an empty batch, which makes plain matrix products."""
    sizes = dict(zip(axes, array.shape, strict=True))
    shape = [prod(sizes[axis] for axis in group) for group in groups]
    array = _arrange(array, axes, tuple(axis for group in groups for axis in group))
    return namespace(array).reshape(array, tuple(shape if groups[0] else shape[1:]))


def _arrange(array: Array, axes: Axes, order: Axes) -> Array:
    return (
        array if axes == order else namespace(array).permute_dims(array, tuple(axes.index(a) for a in order))
    )


def _sum_out(array: Array, axes: Axes, kept: set[str]) -> Named:
    lonely = tuple(position for position, axis in enumerate(axes) if axis not in kept)
    if not lonely:
        return array, axes
    return namespace(array).sum(array, axis=lonely), tuple(axis for axis in axes if axis in kept)


def _diagonals(array: Array, axes: Axes) -> Named:
    """The diagonal of every axis that stands twice, as often as it takes."""
    repeated = next((axis for axis, count in Counter(axes).items() if count > 1), None)
    if repeated is None:
        return array, axes
    first = axes.index(repeated)
    second = axes.index(repeated, first + 1)
    xp, rest = namespace(array), [p for p in range(len(axes)) if p not in (first, second)]
    diagonal = xp.linalg.diagonal(xp.permute_dims(array, (*rest, first, second)))
    return _diagonals(diagonal, (*(axes[position] for position in rest), repeated))
