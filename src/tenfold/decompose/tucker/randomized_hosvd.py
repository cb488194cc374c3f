"""Tucker format from random combinations of fibres."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from tenfold.core.arrays import Array
from tenfold.core.network import Network
from tenfold.core.range_finder import RangeFinder
from tenfold.core.range_passes import RangePasses
from tenfold.decompose import out_of_core
from tenfold.decompose.base import Fit, Method, check_tolerance, methods
from tenfold.decompose.cuts import sequential
from tenfold.formats import Tucker


@methods.register("randomized_hosvd")
@dataclass(frozen=True)
class RandomizedHOSVD(Method[Tucker]):
    """ST-HOSVD whose bases come from random combinations of fibres, by ranks or by a relative error `tol`.

    Basis of an unfolding X: Q, an orthonormal basis of X Ω with a normal matrix Ω of `oversampling` columns
    more than the rank, after `power_iterations` of X Xᴴ; then the leading left singular vectors of Qᴴ X. For
    a tolerance, Q grows by blocks (the first of `block` columns) until what it discards, which is measured,
    is small enough: the tolerance is kept for certain, not only with high probability.

    For large tensors with modes above some hundred and ranks below a tenth of them; where a Gram matrix costs
    less, it is taken, as in `STHOSVD`. With one power iteration, the error is within a few per cent of that
    of `STHOSVD`; raise `power_iterations` where singular values fall slowly.

    Cost for a tensor of N entries: 2 + 2 `power_iterations` passes of O(r N) for the first mode, little for
    the others. Memory: the tensor after its first cut.

    Source: Minster, Saibaba & Kilmer 2020, arXiv:1905.07311.

    >>> import numpy as np
    >>> x = Tucker.random((5, 6, 7), (2, 3, 2), like=np.zeros(()), generator=0).dense()
    >>> RandomizedHOSVD(tol=1e-8)(x, generator=0).value.ranks
    {'R0': 2, 'R1': 3, 'R2': 2}
    """

    format: ClassVar = Tucker
    tolerant: ClassVar = True
    streams: ClassVar = True
    tol: float = 0.0
    oversampling: int = 10
    power_iterations: int = 1
    block: int = 16

    def __post_init__(self) -> None:
        check_tolerance(self.tol)
        self._finder()

    def _finder(self) -> RangeFinder:
        return RangeFinder(self.oversampling, self.power_iterations, self.block)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[Tucker]:
        return sequential(tensor, network, self.tol, partial(self._finder(), generator=generator))

    def _stream(self, tensor: Array, network: Network, generator: Any) -> Fit[Tucker]:
        in_passes = RangePasses(self.oversampling, self.power_iterations, generator)
        basis_of = partial(self._finder(), generator=generator)
        return out_of_core.sequential_tucker(tensor, network, self.tol, in_passes, basis_of)
