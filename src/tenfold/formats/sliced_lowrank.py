"""A matrix in slices of its columns, each of low rank."""

from dataclasses import dataclass

from jaxtyping import Shaped

from tenfold.core.arrays import Array
from tenfold.core.network import Axes
from tenfold.formats.base import Format
from tenfold.formats.registry import formats


@formats.register("sliced_lowrank")
@dataclass(frozen=True, eq=False)
class SlicedLowRank(Format):
    """X[:, s, :] = left[s] @ right[s]: matrices of one rank side by side, W = [U₁ V₁, ..., U_k V_k].

    Both factors carry the mode of the slices. On the inputs of a convolution `right` runs as one of k groups,
    and `left` as one that adds their outputs up: "o (i0=4 i1) h w -> o i0 (i1 h w)". A rank costs
    k · m + k · n elements for slices of shape m × n. Slicing pays where neighbouring columns have more in
    common than all columns have.

    Source: Liebenwein et al., NeurIPS 2021 (ALDS), arXiv:2107.11442.

    >>> import numpy as np
    >>> x = SlicedLowRank.random((6, 3, 4), 2, like=np.zeros(()), generator=0)
    >>> x.left.shape, x.right.shape, x.ranks, x.numel
    ((3, 6, 2), (3, 2, 4), {'R': 2}, 60)
    """

    left: Shaped[Array, "slice m rank"]
    right: Shaped[Array, "slice rank n"]

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """Two factors that share the mode of the slices and one bond."""
        return (("m1", "m0", "R"), ("m1", "R", "m2"))
