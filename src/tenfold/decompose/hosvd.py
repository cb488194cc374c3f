"""Higher-order singular value decompositions: Tucker format without iteration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.algebra import mode_dot, multi_mode_dot, unfold
from tenfold.core.arrays import Array, adjoint
from tenfold.core.linalg import leading_left, rank_for_tolerance, truncated_svd
from tenfold.core.network import Network, bond
from tenfold.decompose.base import Fit, Method, check_tolerance, methods, norm, relative
from tenfold.formats import Tucker


@methods.register("hosvd")
@dataclass(frozen=True)
class HOSVD(Method[Tucker]):
    """Leading left singular vectors of every unfolding, by ranks or by a relative error `tol`.

    The squared error is at most the sum of the discarded squared singular values of all unfoldings, hence
    within sqrt(order) of the best. Bases are orthonormal. `STHOSVD` is cheaper and has the same bound.

    Source: De Lathauwer, De Moor & Vandewalle, SIAM J. Matrix Anal. 21(4), 2000.

    >>> import numpy as np
    >>> x = Tucker.random((5, 6, 7), (2, 3, 2), like=np.zeros(()), generator=0).dense()
    >>> HOSVD(tol=1e-8)(x).value.ranks
    {'R0': 2, 'R1': 3, 'R2': 2}
    """

    format: ClassVar = Tucker
    tolerant: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[Tucker]:
        whole = norm(tensor)
        share = self.tol * whole / max(1, len(network.bonds)) ** 0.5
        matrices = [None if r is None else left_basis(unfold(tensor, k), r, share) for k, r in ranks(network)]
        core = multi_mode_dot(tensor, matrices, adjoint=True)
        value = Tucker(core, tuple(matrices))
        return Fit(value, relative(projection_error(tensor, value), whole))


@methods.register("st_hosvd")
@dataclass(frozen=True)
class STHOSVD(Method[Tucker]):
    """HOSVD in sequence: each mode is cut before the next is looked at, which makes it cheaper and closer.

    Modes are taken in the order in which they shrink the tensor most. The squared error *equals* the sum of
    the squared singular values discarded on the way.

    Source: Vannieuwenhoven, Vandebril & Meerbergen, SIAM J. Sci. Comput. 34(2), 2012.

    >>> import numpy as np
    >>> x = Tucker.random((5, 6, 7), (2, 3, 2), like=np.zeros(()), generator=0).dense()
    >>> STHOSVD()(x, (2, 3, None)).value.core.shape
    (2, 3, 7)
    """

    format: ClassVar = Tucker
    tolerant: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[Tucker]:
        whole, core = norm(tensor), tensor
        share = self.tol * whole / max(1, len(network.bonds)) ** 0.5
        matrices: list[Array | None] = [None] * tensor.ndim
        cut = [(k, r) for k, r in ranks(network) if r is not None]
        for k, r in sorted(cut, key=lambda pair: pair[1] / tensor.shape[pair[0]]):
            basis = left_basis(unfold(core, k), r, share)
            matrices[k] = basis
            core = mode_dot(core, adjoint(basis), k)
        value = Tucker(core, tuple(matrices))
        return Fit(value, relative(projection_error(tensor, value), whole))


def ranks(network: Network) -> Iterator[tuple[int, int | None]]:
    """Mode and its rank; None where the mode stays whole."""
    return ((k, network.size_of.get(bond(k))) for k in range(len(network.modes)))


def left_basis(matrix: Array, rank: int, tolerance: float = 0.0) -> Array:
    """At most `rank` leading left singular vectors, no more than an absolute `tolerance` asks for."""
    rank = min(rank, *matrix.shape)
    if tolerance <= 0:
        return leading_left(matrix, rank)[0]
    u, s, _ = truncated_svd(matrix, min(matrix.shape))
    return u[:, : min(rank, rank_for_tolerance(s, tolerance))]


def projection_error(tensor: Array, value: Tucker) -> float:
    """‖tensor - value‖ for a core that is the projection on orthonormal bases.

    Equals sqrt(‖tensor‖² - ‖core‖²), which loses half the digits; where that could matter, the residual is
    formed.
    """
    whole, core = norm(tensor), norm(value.core)
    square = (whole - core) * (whole + core)
    if square > 1e-2 * whole**2:
        return float(square**0.5)
    return norm(tensor - value.dense())
