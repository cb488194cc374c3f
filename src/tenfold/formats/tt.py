"""Tensor train: a chain of cores, each with one mode."""

from dataclasses import dataclass

from jaxtyping import Shaped

from tenfold.core.arrays import Array
from tenfold.core.network import Axes, bond, mode
from tenfold.formats.base import Format
from tenfold.formats.registry import formats


@formats.register("tt")
@dataclass(frozen=True, eq=False)
class TensorTrain(Format):
    """X[i, j, k, ...] = G0[i, :] G1[:, j, :] G2[:, k, :] ...; the cores at the ends are matrices.

    Source: Oseledets, SIAM J. Sci. Comput. 33(5), 2011, eq. 1.3.

    >>> import numpy as np
    >>> x = TensorTrain.random((6, 4, 3), (2, 2), like=np.zeros(()), generator=0)
    >>> [c.shape for c in x.cores], x.ranks
    ([(6, 2), (2, 4, 2), (2, 3)], {'R1': 2, 'R2': 2})
    """

    cores: tuple[Shaped[Array, "left mode right"], ...]

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """Bond k lies between modes k - 1 and k."""
        bonds = [(), *((bond(k),) for k in range(1, order)), ()]
        return tuple((*bonds[k], mode(k), *bonds[k + 1]) for k in range(order))
