"""Tensor ring: a chain of cores that closes on itself."""

from dataclasses import dataclass

from jaxtyping import Shaped

from tenfold.core.arrays import Array
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes, bond, mode
from tenfold.formats.base import Format
from tenfold.formats.registry import formats


@formats.register("tr")
@dataclass(frozen=True, eq=False)
class TensorRing(Format):
    """X[i, j, k, ...] = trace(G0[:, i, :] G1[:, j, :] G2[:, k, :] ...); every core has three axes.

    Bond k lies before mode k, and bond 0 closes the ring: a ring whose bond 0 has size 1 is a tensor train,
    whose first and last core keep an axis of size 1 here. The tensors of given ranks are no closed set from
    order 3 on, as with CP, and the ranks that a tensor needs are not unique: one may be traded for another.

    Ranks are cut to what a bond needs where the ring is opened elsewhere: the smaller side of the best part
    in two. Where all are that large, a train with the same bonds would do.

    Source: Zhao, Zhou, Xie, Zhang, Cichocki 2016, arXiv:1606.05535, eq. 1; Ye & Lim 2018, arXiv:1801.02662.

    >>> import numpy as np
    >>> x = TensorRing.random((6, 4, 3), (2, 3, 2), like=np.zeros(()), generator=0)
    >>> [c.shape for c in x.cores], x.ranks
    ([(2, 6, 3), (3, 4, 2), (2, 3, 2)], {'R0': 2, 'R1': 3, 'R2': 2})
    """

    cores: tuple[Shaped[Array, "left mode right"], ...]

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """Bond k lies between modes k - 1 and k, bond 0 between the last and the first."""
        if order < 2:
            raise ShapeError(
                f"TensorRing does not hold tensors of order {order}.",
                "One core has no other to meet; use a tensor of order 2 or more.",
            )
        return tuple((bond(k), mode(k), bond((k + 1) % order)) for k in range(order))
