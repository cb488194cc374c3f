"""How the rows of a table become axes: a vocabulary is split into digits, and padded if need be."""

import math

from tenfold.core.errors import LayoutError, OptionError
from tenfold.core.layout import Layout, balanced
from tenfold.core.network import Axes, Axis


def table_layout(text: str, rows: int, columns: int, padded_to: int | None = None) -> Layout:
    """The layout of a table (rows, columns) with all sizes filled in; it may have more rows than the table.

    Axes without a size get sizes as equal as can be. Columns split exactly. Rows do if they have such
    divisors; otherwise the table is padded with rows that no index asks for, to `padded_to` rows or as few
    as equal sizes need.

    Raises:
        LayoutError: if the layout is not one of a table, or its sizes do not make these rows and columns.
        OptionError: if `padded_to` is less than the rows, or the vocabulary is not split.

    >>> table_layout("(v0 v1 v2) (o0 o1 o2) -> (v0 o0) (v1 o1) (v2 o2)", 30522, 768).shape
    (30752, 768)
    >>> str(table_layout("(v0=32 v1=32 v2) (o0=8 o1=8 o2) -> (v0 o0) (v1 o1) (v2 o2)", 30522, 768))
    '(v0=32 v1=32 v2=30) (o0=8 o1=8 o2=12) -> (v0 o0) (v1 o1) (v2 o2)'
    """
    layout = Layout.parse(text)
    if len(layout.weight) != 2:
        return layout.bind((rows, columns), "the table")
    vocabulary, outputs = layout.weight
    sizes = dict(layout.sizes)
    if padded_to is not None:
        _check_padding(padded_to, rows, vocabulary)
    sizes |= _open(vocabulary, sizes, rows if padded_to is None else padded_to, exact=padded_to is not None)
    sizes |= _open(outputs, sizes, columns, exact=True)
    total = math.prod(sizes[a] for a in vocabulary if a in sizes)
    if total < rows:
        raise LayoutError(
            f'layout "{text}" has {" * ".join(str(sizes[a]) for a in vocabulary)} = {total} rows, '
            f"but the table has {rows}.",
            "Choose sizes whose product is as large, or a little larger.",
        )
    wanted = total if padded_to is None else padded_to
    return Layout(layout.weight, layout.modes, tuple(sizes.items())).bind((wanted, columns), "the table")


def _check_padding(padded_to: int, rows: int, vocabulary: Axes) -> None:
    if padded_to < rows or len(vocabulary) == 1:
        raise OptionError(
            f"padded_to came as {padded_to}, for {rows} rows with the axes {' '.join(vocabulary)}.",
            "Give as many as there are, or a few more, and a layout that splits them: (v0 v1) ...",
        )


def _open(axes: Axes, sizes: dict[Axis, int], size: int, exact: bool) -> dict[Axis, int]:
    """Sizes of the axes that have none; none where those that are given do not divide."""
    free = [a for a in axes if a not in sizes]
    given = math.prod(sizes[a] for a in axes if a in sizes)
    if not free or (exact and size % given):
        return {}
    if exact:
        return dict(zip(free, balanced(size // given, len(free)), strict=True))
    return dict(zip(free, digits_above(-(-size // given), len(free)), strict=True))


def digits_above(size: int, parts: int) -> tuple[int, ...]:
    """So many nearly equal numbers whose product is `size`, or the least more.

    >>> digits_above(1024, 2), digits_above(30522, 3), digits_above(7, 1), digits_above(50257, 2)
    ((32, 32), (32, 31, 31), (7,), (225, 224))
    """
    exact = balanced(size, parts)
    if exact[-1] <= 2 * exact[0]:
        return exact
    first = math.ceil(size ** (1 / parts) - 1e-9)
    return (first, *_rest_above(-(-size // first), parts - 1))


def _rest_above(size: int, parts: int) -> tuple[int, ...]:
    if parts == 1:
        return (size,)
    first = math.ceil(size ** (1 / parts) - 1e-9)
    return (first, *_rest_above(-(-size // first), parts - 1))
