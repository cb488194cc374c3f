"""How alike two CP decompositions are, whatever the order and scaling of their components."""

import math
from dataclasses import dataclass

from jaxtyping import Float

from tenfold.core.arrays import Array, adjoint, lengths, namespace, values_needed
from tenfold.core.errors import ShapeError
from tenfold.decompose.base import number
from tenfold.formats import CP


@dataclass(frozen=True)
class Match:
    """Components paired such that their congruences have the largest sum.

    `order[r]` is the component of the second decomposition that belongs to component r of the first, and
    `congruences[r]` how alike they are: 1 for the same, 0 for orthogonal ones.
    """

    order: tuple[int, ...]
    congruences: tuple[float, ...]

    @property
    def score(self) -> float:
        """The mean congruence."""
        return sum(self.congruences) / len(self.congruences)

    @property
    def worst(self) -> float:
        """The least congruence: above 0.9, say, all components are found."""
        return min(self.congruences)


def congruences(a: CP, b: CP) -> Float[Array, "r s"]:
    """|cos| of the angle between each component of `a` and each of `b`, as tensors.

    The product over the modes of the |cosines| between their vectors (Tucker 1951). A component that is zero
    has congruence 0 with all.

    Raises:
        ShapeError: if they are not of one shape.

    >>> import numpy as np
    >>> a = CP((np.eye(2), np.eye(2)))
    >>> congruences(a, CP((np.asarray([[1.0], [1.0]]), np.asarray([[0.0], [3.0]])))).round(3)
    array([[0.   ],
           [0.707]])
    """
    if a.shape != b.shape:
        raise ShapeError(
            f"decompositions of shapes {a.shape} and {b.shape} cannot be compared.", "Give one shape."
        )
    cosines = [_unit(u) for u in a.matrices], [_unit(v) for v in b.matrices]
    xp = namespace(*a.matrices, *b.matrices)
    return math.prod(xp.abs(adjoint(u) @ v) for u, v in zip(*cosines, strict=True))


@values_needed("a pairing", "Call it outside jit and vmap; `congruences` works there, too.")
def matched(a: CP, b: CP) -> Match:
    """The best pairing of the components of `a` with different ones of `b`, which has at least as many.

    Raises:
        ShapeError: if they are not of one shape, or `b` has fewer components.
        UnsupportedError: for traced arrays.

    >>> import numpy as np
    >>> a = CP.random((4, 5, 6), 3, like=np.zeros(()), generator=0)
    >>> b = CP(tuple(-2 * f[:, [2, 0, 1]] for f in a.matrices))
    >>> match = matched(a, b)
    >>> match.order, round(match.worst, 12)
    ((1, 2, 0), 1.0)
    """
    table = congruences(a, b)
    if table.shape[0] > table.shape[1]:
        raise ShapeError(
            f"{table.shape[0]} components cannot be paired with {table.shape[1]}.",
            "Give the decomposition with fewer components first.",
        )
    rows = [[number(table[r, s]) for s in range(table.shape[1])] for r in range(table.shape[0])]
    order = assigned(rows)
    return Match(tuple(order), tuple(rows[r][s] for r, s in enumerate(order)))


def _unit(factor: Float[Array, "i r"]) -> Float[Array, "i r"]:
    xp = namespace(factor)
    norms = lengths(factor, axis=0)
    return factor / xp.where(norms > 0, norms, xp.ones_like(norms))


def assigned(gain: list[list[float]]) -> list[int]:
    """A different column for each row such that the gains have the largest sum.

    Shortest augmenting paths with potentials, O(rows² columns) (Kuhn 1955; Jonker & Volgenant 1987).

    >>> assigned([[0.9, 0.8], [0.8, 0.1]])
    [1, 0]
    """
    count, width = len(gain), len(gain[0])
    row_price, price, owner = [0.0] * count, [0.0] * width, [-1] * width
    for row in range(count):
        distance, via, done, free = _paths(gain, row, row_price, price, owner)
        for column in done:
            price[column] += distance[column] - distance[free]
            row_price[owner[column]] += distance[free] - distance[column]
        row_price[row] += distance[free]
        while free >= 0:
            before = via[free]
            owner[free] = row if before < 0 else owner[before]
            free = before
    return [owner.index(row) for row in range(count)]


def _paths(
    gain: list[list[float]], row: int, row_price: list[float], price: list[float], owner: list[int]
) -> tuple[list[float], list[int], list[int], int]:
    """Dijkstra's shortest path from a row to a column that nobody owns: distances, ways, columns passed."""
    distance, via = [math.inf] * len(price), [-1] * len(price)
    done: list[int] = []
    ahead = set(range(len(price)))
    at, column, length = row, -1, 0.0
    while True:
        for j in ahead:
            reach = length - gain[at][j] - row_price[at] - price[j]
            if reach < distance[j]:
                distance[j], via[j] = reach, column
        column = min(ahead, key=distance.__getitem__)
        length = distance[column]
        if owner[column] < 0:
            return distance, via, done, column
        done.append(column)
        ahead.remove(column)
        at = owner[column]
