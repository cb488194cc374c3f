"""Tensor ring by alternating least squares."""

from dataclasses import dataclass
from typing import ClassVar

from tenfold.decompose.base import methods
from tenfold.decompose.networks.als import Alternating
from tenfold.formats import TensorRing


@methods.register("tr_als")
@dataclass(frozen=True)
class TRALS(Alternating[TensorRing]):
    """Each core in turn solves its least-squares problem, the chain of all other cores as it is.

    With B the contraction of the other cores, a matrix of (all other modes) × (left bond · right bond),

        G Bᴴ B = T Bᴴ

    for the core G as a matrix of (own mode) × (left bond · right bond). Bᴴ B is the product of r² × r²
    transfer matrices of the other cores, T Bᴴ a planned contraction that shares partial results over a sweep.

    A ring has local minima even where the tensor has its ranks: of 30 random starts on exact rings of ranks 2
    and 3, between 8 and 21 ended in one. So several starts are tried: TR-SVD (`start="svd"`) or random cores,
    then `restarts` - 1 random ones get `trial_steps` sweeps each, and the best `finalists` go on until one is
    exact. Stops (`converged`) when a sweep changes the error by less than `tol` relative to it.

    Choose it for given ranks; `TRSVD` for a tolerance; `NetworkGN("tr")` where it creeps, and for the last
    digits.

    Cost of a sweep: O(size · r²) for the tensor, read two to six times, and O(order · n · r⁴ + order · r⁶).

    Source: Wang, Aggarwal & Aeron, ICCV 2017; Zhao, Zhou, Xie, Zhang & Cichocki 2016, algorithm 2,
    arXiv:1606.05535.

    >>> import numpy as np
    >>> x = TensorRing.random((5, 6, 7), 2, like=np.zeros(()), generator=0).dense()
    >>> TRALS(tol=1e-4, max_steps=1000)(x, 2, generator=0).error < 1e-10
    True
    """

    format: ClassVar = TensorRing
    restarts: int = 6
    finalists: int = 2
