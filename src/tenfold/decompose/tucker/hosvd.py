"""Higher-order singular value decompositions: Tucker format without iteration."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.algebra import multi_mode_dot
from tenfold.core.arrays import Array
from tenfold.core.leading import leading
from tenfold.core.network import Network
from tenfold.core.pieces import frobenius
from tenfold.core.sparse import Sparse
from tenfold.decompose import out_of_core
from tenfold.decompose.base import Fit, Method, check_tolerance, methods, relative
from tenfold.decompose.cuts import ranks, sequential, share_of
from tenfold.decompose.residual import projection_error
from tenfold.decompose.tucker.sparse_hooi import sparse_hosvd
from tenfold.formats import Tucker


@methods.register("hosvd")
@dataclass(frozen=True)
class HOSVD(Method[Tucker]):
    """Leading left singular vectors of every unfolding, by ranks or by a relative error `tol`.

    U(k) are the leading left singular vectors of the unfolding X(k), and the core is X ×₁ U(1)ᴴ ×₂ U(2)ᴴ …
    The squared error is at most the sum of the discarded squared singular values of all unfoldings, hence
    within sqrt(order) of the best. Bases are orthonormal, the slices of the core orthogonal and in falling
    order of norm where no mode is cut. Use it where all bases shall come from the same tensor; `STHOSVD` is
    cheaper and has the same bound. Sparse tensors are never made dense, see `sparse_hosvd`.

    Cost for a tensor of N entries and modes of size n: O(n N) for each mode, and O(n³) for the eigenvectors.
    Memory: the core, and pieces of the tensor.

    Source: De Lathauwer, De Moor & Vandewalle, SIAM J. Matrix Anal. 21(4), 2000.

    >>> import numpy as np
    >>> x = Tucker.random((5, 6, 7), (2, 3, 2), like=np.zeros(()), generator=0).dense()
    >>> HOSVD(tol=1e-8)(x).value.ranks
    {'R0': 2, 'R1': 3, 'R2': 2}
    """

    format: ClassVar = Tucker
    accepts: ClassVar = (Sparse,)
    tolerant: ClassVar = True
    streams: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array | Sparse, network: Network, generator: Any) -> Fit[Tucker]:
        if isinstance(tensor, Sparse):
            return sparse_hosvd(tensor, network, self.tol, generator)
        whole = frobenius(tensor)
        share = share_of(self.tol, whole, network)
        matrices = [None if r is None else leading(tensor, k, r, share)[0] for k, r in ranks(network)]
        core = multi_mode_dot(tensor, matrices, adjoint=True)
        value = Tucker(core, tuple(matrices))
        return Fit(value, relative(projection_error(tensor, value, whole, frobenius(core)), whole))

    def _stream(self, tensor: Array, network: Network, generator: Any) -> Fit[Tucker]:
        return out_of_core.tucker(tensor, network, self.tol)


@methods.register("st_hosvd")
@dataclass(frozen=True)
class STHOSVD(Method[Tucker]):
    """HOSVD in sequence: each mode is cut before the next is looked at, which makes it cheaper and closer.

    The first choice for Tucker. Modes are taken in the order that costs least. The squared error *equals* the
    sum of the squared singular values discarded on the way, so that a tolerance is kept exactly. A sparse
    tensor is projected on the bases of its own unfoldings, as by `HOSVD`: it would be dense after one cut.

    Cost for a tensor of N entries: O(n N) for the first mode, of size n, little for the others if its rank is
    small, and O(n³) for the eigenvectors of each. Memory: the tensor after its first cut.

    Source: Vannieuwenhoven, Vandebril & Meerbergen, SIAM J. Sci. Comput. 34(2), 2012.

    >>> import numpy as np
    >>> x = Tucker.random((5, 6, 7), (2, 3, 2), like=np.zeros(()), generator=0).dense()
    >>> STHOSVD()(x, (2, 3, None)).value.core.shape
    (2, 3, 7)
    """

    format: ClassVar = Tucker
    accepts: ClassVar = (Sparse,)
    tolerant: ClassVar = True
    streams: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array | Sparse, network: Network, generator: Any) -> Fit[Tucker]:
        if isinstance(tensor, Sparse):
            return sparse_hosvd(tensor, network, self.tol, generator)
        return sequential(tensor, network, self.tol, leading)

    def _stream(self, tensor: Array, network: Network, generator: Any) -> Fit[Tucker]:
        return out_of_core.sequential_tucker(tensor, network, self.tol)
