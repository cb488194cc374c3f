"""A matrix of low rank."""

from dataclasses import dataclass

from jaxtyping import Shaped

from tenfold.core.arrays import Array
from tenfold.core.network import Axes
from tenfold.formats.base import Format
from tenfold.formats.registry import formats


@formats.register("lowrank")
@dataclass(frozen=True, eq=False)
class LowRank(Format):
    """X = left @ right, both with the singular values' square roots in them.

    >>> import numpy as np
    >>> x = LowRank.random((6, 4), 2, like=np.zeros(()), generator=0)
    >>> x.shape, x.ranks, x.numel
    ((6, 4), {'R': 2}, 20)
    """

    left: Shaped[Array, "m rank"]
    right: Shaped[Array, "rank n"]

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """Two factors that share one bond."""
        return (("m0", "R"), ("R", "m1"))
