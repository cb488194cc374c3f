"""Tucker format: a core and one matrix for each mode that is compressed."""

from dataclasses import dataclass

from jaxtyping import Shaped

from tenfold.core.arrays import Array
from tenfold.core.network import Axes, bond, mode
from tenfold.formats.base import Format
from tenfold.formats.registry import formats


@formats.register("tucker")
@dataclass(frozen=True, eq=False)
class Tucker(Format):
    """X[i, j, ...] = sum core[p, q, ...] U[i, p] V[j, q] ...; a matrix that is None leaves its mode whole.

    Source: Tucker 1966; Kolda & Bader, SIAM Review 51(3), 2009, eq. 4.1.

    >>> import numpy as np
    >>> x = Tucker.random((6, 4, 3), (2, 2, None), like=np.zeros(()), generator=0)
    >>> x.core.shape, x.ranks, x.numel
    ((2, 2, 3), {'R0': 2, 'R1': 2}, 32)
    """

    core: Shaped[Array, "*ranks"]
    matrices: tuple[Shaped[Array, "mode rank"] | None, ...]

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """A core over all bonds, and a matrix from each mode to its bond."""
        bonds = tuple(bond(k) for k in range(order))
        return (bonds, *((mode(k), b) for k, b in enumerate(bonds)))
