"""Higher-order orthogonal iteration: the best Tucker approximation of given ranks, locally."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.algebra import mode_dot, multi_mode_dot
from tenfold.core.arrays import Array, adjoint
from tenfold.core.errors import OptionError
from tenfold.core.leading import improved, leading
from tenfold.core.linalg import orthonormalise
from tenfold.core.network import Network
from tenfold.core.noise import normal
from tenfold.core.pieces import frobenius
from tenfold.core.sparse import Sparse
from tenfold.core.svd_gradient import needs_gradient
from tenfold.decompose.base import Fit, Method, check_steps, check_tolerance, methods, relative, settled
from tenfold.decompose.cuts import ranks, sequential
from tenfold.decompose.residual import projection_error
from tenfold.decompose.trains.ends import identity
from tenfold.decompose.tucker.sparse_hooi import sparse_hooi
from tenfold.formats import Tucker


@methods.register("hooi")
@dataclass(frozen=True)
class HOOI(Method[Tucker]):
    """Each basis in turn is made the best one for the others, from ST-HOSVD on.

    The basis U(k) becomes the leading left singular vectors of the unfolding k of X ×₁ U(1)ᴴ … without the
    k-th product, sought in a Krylov space of the basis that was, which costs a fraction of all singular
    vectors and loses little. The error never grows. Stops (`converged`) when a sweep lowers it by less than
    `tol` of the tensor's norm. Rarely gains more than a few per cent over ST-HOSVD. `restarts` random starts
    more, of which the best result counts, may find a better optimum where ranks are very small.

    Sparse tensors are never made dense: a sweep costs O(entries · product of the other ranks) for each mode.

    Cost for a tensor of N entries: a sweep takes two products of O(r N), whatever the order, and little
    more. Memory: the tensor after one of these products.

    Source: De Lathauwer, De Moor & Vandewalle, SIAM J. Matrix Anal. 21(4), 2000, algorithm 4.2; products
    shared in a tree as by Kaya & Ucar, 'High performance parallel algorithms for the Tucker decomposition of
    sparse tensors', 2016.

    >>> import numpy as np
    >>> x = Tucker.random((5, 6, 7), (2, 3, 2), like=np.zeros(()), generator=0).dense()
    >>> HOOI()(x, (2, 3, 2)).error < 1e-12
    True
    """

    format: ClassVar = Tucker
    accepts: ClassVar = (Sparse,)
    tol: float = 1e-5
    max_steps: int = 50
    restarts: int = 0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)
        check_steps(self.max_steps)
        if self.restarts < 0:
            raise OptionError(f"restarts came as {self.restarts}.", "Give 0 or more.")

    def _fit(self, tensor: Array | Sparse, network: Network, generator: Any) -> Fit[Tucker]:
        if isinstance(tensor, Sparse):
            return sparse_hooi(tensor, network, self.tol, self.max_steps, generator)
        whole = frobenius(tensor)
        best = self._run(tensor, network, sequential(tensor, network, 0.0, leading), whole)
        for _ in range(self.restarts):
            found = self._run(tensor, network, random_start(tensor, network, whole, generator), whole)
            best = found if settled(found.error < best.error) else best
        return best

    def _run(self, tensor: Array, network: Network, start: Fit[Tucker], whole: float) -> Fit[Tucker]:
        value, trace, converged = start.value, [start.error], False
        while not converged and len(trace) <= self.max_steps:
            value = sweep(tensor, value, network)
            error = projection_error(tensor, value, whole, frobenius(value.core))
            trace.append(relative(error, whole))
            converged = settled(trace[-2] - trace[-1] <= self.tol)
        return Fit(value, trace[-1], len(trace), converged, tuple(trace))


def random_start(tensor: Array, network: Network, whole: float, generator: Any) -> Fit[Tucker]:
    """The projection on random bases."""
    draws = (
        None if r is None else orthonormalise(normal((n, r), like=tensor, generator=generator))[0]
        for n, (_, r) in zip(tensor.shape, ranks(network), strict=True)
    )
    matrices = tuple(draws)
    value = Tucker(multi_mode_dot(tensor, matrices, adjoint=True), matrices)
    return Fit(value, relative(projection_error(tensor, value, whole, frobenius(value.core)), whole))


def sweep(tensor: Array, value: Tucker, network: Network) -> Tucker:
    """Renew every basis once. Where a rank is the size of its mode, any basis is the best: the identity."""
    sizes = [(k, n, r) for n, (k, r) in zip(tensor.shape, ranks(network), strict=True) if r is not None]
    matrices = list(value.matrices)
    for k, n, r in sizes:
        matrices[k] = identity(n, tensor) if r == n else matrices[k]
    cut = [(k, r) for k, n, r in sizes if r < n]
    core = renew(tensor, cut, matrices, needs_gradient(tensor)) if cut else tensor
    return Tucker(core, tuple(matrices))


def renew(tensor: Array, cut: list[tuple[int, int]], matrices: list[Array | None], exact: bool) -> Array:
    """Renew the bases of the modes `cut` of a tensor that is projected in all others, and return the core.

    Modes are halved, so that the products with one half serve all modes of the other half.
    """
    if len(cut) == 1:
        ((k, r),) = cut
        basis = leading(tensor, k, r)[0] if exact else improved(tensor, k, matrices[k])
        matrices[k] = basis
        return mode_dot(tensor, adjoint(basis), k)
    middle = len(cut) // 2
    for ours, others in ((cut[:middle], cut[middle:]), (cut[middle:], cut[:middle])):
        modes = [k for k, _ in others]
        projected = multi_mode_dot(tensor, [matrices[k] for k in modes], modes, adjoint=True)
        core = renew(projected, ours, matrices, exact)
    return core
