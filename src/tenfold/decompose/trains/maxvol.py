"""Rows of a tall matrix that span it well: a submatrix of nearly the largest volume."""

from math import prod

from jaxtyping import Float

from tenfold.core.arrays import Array, device_of, integer_dtype, namespace
from tenfold.core.errors import ShapeError


def maxvol(
    matrix: Float[Array, "n r"], *, excess: float = 0.02, max_swaps: int = 1000
) -> tuple[list[int], Float[Array, "n r"]]:
    """Rows of a dominant r × r submatrix M, and the interpolation matrix C = matrix M⁻¹.

    No entry of C is larger than 1 + `excess`, so that interpolating from these rows is stable; there, C is
    the identity. Starts from the rows that Gaussian elimination with pivoting picks, and swaps a row for
    another as long as this makes the volume |det M| grow by more than that.

    Raises:
        ShapeError: unless the matrix has at least as many rows as columns.

    Source: Goreinov, Oseledets, Savostyanov, Tyrtyshnikov & Zamarashkin, 'How to find a good submatrix',
    2010.

    >>> import numpy as np
    >>> rows, coefficients = maxvol(np.array([[1.0, 0.0], [4.0, 0.0], [2.0, 3.0]]))
    >>> rows, coefficients.round(6)
    ([1, 2], array([[0.25, 0.  ],
           [1.  , 0.  ],
           [0.  , 1.  ]]))
    """
    n, r = matrix.shape
    if n < r:
        raise ShapeError(f"a matrix of shape {(n, r)} has no {r} independent rows.", "Transpose it.")
    rows = pivot_rows(matrix)
    coefficients = interpolation(matrix, rows)
    for _ in range(max_swaps):
        row, column = largest(coefficients)
        if abs(complex(coefficients[row, column])) <= 1 + excess:
            break
        coefficients = swapped(coefficients, row, column)
        rows[column] = row
    return rows, interpolation(matrix, rows)


def pivot_rows(matrix: Float[Array, "n r"]) -> list[int]:
    """The rows that Gaussian elimination with the largest pivot of each column picks."""
    xp = namespace(matrix)
    rows: list[int] = []
    free = xp.ones((matrix.shape[0],), dtype=xp.bool, device=device_of(matrix))
    for k in range(matrix.shape[1]):
        sizes = xp.where(free, xp.abs(matrix[:, k]), -xp.ones_like(xp.abs(matrix[:, k])))
        row = int(xp.argmax(sizes))
        rows.append(row)
        free = free & (xp.arange(matrix.shape[0], device=device_of(matrix)) != row)
        pivot = matrix[row, k]
        if complex(pivot) != 0:
            matrix = matrix - matrix[:, k : k + 1] * (matrix[row : row + 1, :] / pivot)
    return rows


def interpolation(matrix: Float[Array, "n r"], rows: list[int]) -> Float[Array, "n r"]:
    """matrix M⁻¹ for the submatrix M of some rows."""
    xp = namespace(matrix)
    return xp.linalg.solve(chosen(matrix, rows).T, matrix.T).T


def chosen(matrix: Array, rows: list[int]) -> Array:
    """Some rows of a matrix."""
    xp = namespace(matrix)
    return xp.take(matrix, xp.asarray(rows, dtype=integer_dtype(matrix), device=device_of(matrix)), axis=0)


def largest(x: Float[Array, "n r"]) -> tuple[int, int]:
    """Row and column of the entry of the largest modulus."""
    xp = namespace(x)
    return divmod(int(xp.argmax(xp.reshape(xp.abs(x), (prod(x.shape),)))), x.shape[1])


def swapped(coefficients: Float[Array, "n r"], row: int, column: int) -> Float[Array, "n r"]:
    """The interpolation matrix after `row` has taken the place of the row number `column`."""
    xp = namespace(coefficients)
    unit = xp.eye(
        1, coefficients.shape[1], k=column, dtype=coefficients.dtype, device=device_of(coefficients)
    )
    change = (coefficients[row : row + 1, :] - unit) / coefficients[row, column]
    return coefficients - coefficients[:, column : column + 1] * change
