"""Higher-order orthogonal iteration: the best Tucker approximation of given ranks, locally."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.algebra import multi_mode_dot, unfold
from tenfold.core.arrays import Array
from tenfold.core.network import Network
from tenfold.decompose.base import Fit, Method, check_steps, check_tolerance, methods, norm, relative
from tenfold.decompose.hosvd import STHOSVD, left_basis, projection_error, ranks
from tenfold.formats import Tucker


@methods.register("hooi")
@dataclass(frozen=True)
class HOOI(Method[Tucker]):
    """Each basis in turn is made the best one for the others, from ST-HOSVD on.

    The error never grows. Stops (`converged`) when a sweep lowers it by less than `tol` of the tensor's norm.
    Rarely gains more than a few per cent over ST-HOSVD.

    Source: De Lathauwer, De Moor & Vandewalle, SIAM J. Matrix Anal. 21(4), 2000, algorithm 4.2.

    >>> import numpy as np
    >>> x = Tucker.random((5, 6, 7), (2, 3, 2), like=np.zeros(()), generator=0).dense()
    >>> HOOI()(x, (2, 3, 2)).error < 1e-12
    True
    """

    format: ClassVar = Tucker
    tol: float = 1e-5
    max_steps: int = 50

    def __post_init__(self) -> None:
        check_tolerance(self.tol)
        check_steps(self.max_steps)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[Tucker]:
        whole = norm(tensor)
        value = STHOSVD()._fit(tensor, network, generator).value
        trace = [relative(projection_error(tensor, value), whole)]
        converged = False
        while not converged and len(trace) <= self.max_steps:
            value = sweep(tensor, value, network)
            trace.append(relative(projection_error(tensor, value), whole))
            converged = trace[-2] - trace[-1] <= self.tol
        return Fit(value, trace[-1], len(trace), converged, tuple(trace))


def sweep(tensor: Array, value: Tucker, network: Network) -> Tucker:
    """Renew every basis once."""
    matrices = list(value.matrices)
    for k, r in ranks(network):
        if r is not None:
            others = [None if n == k else m for n, m in enumerate(matrices)]
            matrices[k] = left_basis(unfold(multi_mode_dot(tensor, others, adjoint=True), k), r)
    return Tucker(multi_mode_dot(tensor, matrices, adjoint=True), tuple(matrices))
