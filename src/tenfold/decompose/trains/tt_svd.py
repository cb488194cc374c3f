"""Tensor train by a sequence of truncated SVDs."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.core.arrays import Array
from tenfold.core.leading import leading
from tenfold.core.network import Network
from tenfold.decompose import out_of_core
from tenfold.decompose.base import Fit, Method, check_tolerance, methods
from tenfold.decompose.trains.ends import cut_train
from tenfold.formats import TensorTrain


@methods.register("tt_svd")
@dataclass(frozen=True)
class TTSVD(Method[TensorTrain]):
    """One SVD for each bond, by ranks or by a relative error `tol`, of which each bond gets its share.

    The tensor is cut from both ends, always at the end where the unfolding is lower: X ≈ U (Uᴴ X) from the
    left, with the leading left singular vectors U as a core, and likewise from the right, until one mode is
    left. The squared error is the sum of what the bonds discard, so it is within sqrt(order - 1) of the best
    for these ranks. Cores left of the last cut one have orthonormal columns, cores right of it orthonormal
    rows.

    Cost for a tensor of N entries, the smaller of its outer modes of size n: O(n N) for the first cut, little
    for the others if its rank is small. Memory: the tensor after its first cut.

    Source: Oseledets, SIAM J. Sci. Comput. 33(5), 2011, algorithm 1; from both ends to save work.

    >>> import numpy as np
    >>> x = np.sin(np.arange(64.0)).reshape(4, 4, 4)
    >>> TTSVD(tol=1e-10)(x).value.ranks
    {'R1': 2, 'R2': 2}
    """

    format: ClassVar = TensorTrain
    tolerant: ClassVar = True
    streams: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[TensorTrain]:
        return cut_train(tensor, network, self.tol, leading)

    def _stream(self, tensor: Array, network: Network, generator: Any) -> Fit[TensorTrain]:
        return out_of_core.train(tensor, network, self.tol)
