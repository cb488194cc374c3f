"""Canonical polyadic format: a sum of rank-one tensors."""

from dataclasses import dataclass

from jaxtyping import Shaped

from tenfold.core.arrays import Array
from tenfold.core.network import Axes, mode
from tenfold.formats.base import Format
from tenfold.formats.registry import formats


@formats.register("cp")
@dataclass(frozen=True, eq=False)
class CP(Format):
    """X[i, j, ...] = sum_r A[i, r] B[j, r] ...; the components' norms are spread over the factors.

    Source: Hitchcock 1927; Kolda & Bader, SIAM Review 51(3), 2009, eq. 3.1.

    >>> import numpy as np
    >>> x = CP.random((6, 4, 3), 2, like=np.zeros(()), generator=0)
    >>> x.shape, x.ranks, x.numel
    ((6, 4, 3), {'R': 2}, 26)
    """

    matrices: tuple[Shaped[Array, "mode rank"], ...]

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """One matrix for each mode; all share one bond."""
        return tuple((mode(k), "R") for k in range(order))
