"""Tensor train by a sequence of truncated SVDs."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.core.arrays import Array, adjoint, namespace
from tenfold.core.network import Network, bond
from tenfold.decompose.base import Fit, Method, check_tolerance, methods, norm, relative
from tenfold.decompose.hosvd import left_basis
from tenfold.formats import TensorTrain


@methods.register("tt_svd")
@dataclass(frozen=True)
class TTSVD(Method[TensorTrain]):
    """One SVD for each bond, by ranks or by a relative error `tol`, of which each bond gets its share.

    The squared error is the sum of what the bonds discard, so it is within sqrt(order - 1) of the best for
    these ranks. All cores but the last have orthonormal columns.

    Source: Oseledets, SIAM J. Sci. Comput. 33(5), 2011, algorithm 1.

    >>> import numpy as np
    >>> x = np.sin(np.arange(64.0)).reshape(4, 4, 4)
    >>> TTSVD(tol=1e-10)(x).value.ranks
    {'R1': 2, 'R2': 2}
    """

    format: ClassVar = TensorTrain
    tolerant: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[TensorTrain]:
        xp, shape, whole = namespace(tensor), tensor.shape, norm(tensor)
        share = self.tol * whole / max(1, tensor.ndim - 1) ** 0.5
        rest, left, cores = tensor, 1, []
        for k in range(tensor.ndim - 1):
            matrix = xp.reshape(rest, (left * shape[k], -1))
            basis = left_basis(matrix, network.size_of[bond(k + 1)], share)
            rest = adjoint(basis) @ matrix
            cores.append(xp.reshape(basis, (left, shape[k], -1) if k else (shape[k], -1)))
            left = basis.shape[1]
        cores.append(rest)
        value = TensorTrain(tuple(cores))
        return Fit(value, relative(train_error(tensor, value), whole))


def train_error(tensor: Array, value: TensorTrain) -> float:
    """‖tensor - value‖ for a train whose cores but the last are orthonormal.

    Equals sqrt(‖tensor‖² - ‖last core‖²), which loses half the digits; where that could matter, the residual
    is formed.
    """
    whole, last = norm(tensor), norm(value.cores[-1])
    square = (whole - last) * (whole + last)
    if square > 1e-2 * whole**2:
        return float(square**0.5)
    return norm(tensor - value.dense())
