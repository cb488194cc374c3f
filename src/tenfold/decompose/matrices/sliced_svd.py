"""Low-rank approximation of the slices of a matrix."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float

from tenfold.core.arrays import Array, is_traced, namespace, root
from tenfold.core.network import Network
from tenfold.core.svd import fix_signs, rank_within
from tenfold.core.svd_gradient import left_svd
from tenfold.decompose.base import Fit, Method, check_tolerance, methods, norm, relative
from tenfold.formats import SlicedLowRank


@methods.register("sliced_svd")
@dataclass(frozen=True)
class SlicedSVD(Method[SlicedLowRank]):
    """The truncated SVD of every slice of (rows, slices, columns), all of one rank.

    The best approximation, as the slices have nothing in common: the squared error is the sum of theirs. By a
    relative error `tol` of the whole, or by the rank. In the spectral norm, the error of all slices side by
    side is between the largest of theirs and sqrt(number of slices) times that. The square roots of the
    singular values go to both factors.

    Cost: O(k m n min(m, n)) for k slices of m × n. Memory: two copies of the tensor.

    Source: Liebenwein et al., NeurIPS 2021 (ALDS), arXiv:2107.11442.

    >>> import numpy as np
    >>> x = np.stack([np.diag([3.0, 4.0]), np.diag([12.0, 0.0])], axis=1)
    >>> fit = SlicedSVD()(x, 1)
    >>> fit.value.ranks, round(13 * fit.error, 12)
    ({'R': 1}, 3.0)
    """

    format: ClassVar = SlicedLowRank
    tolerant: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[SlicedLowRank]:
        u, s, vh = slice_svd(tensor)
        xp, whole = namespace(s), norm(s)
        scale = 1.0 if is_traced(whole) or whole == 0 else whole
        together = xp.linalg.vector_norm(s / scale, axis=0)
        rank = rank_within(network.ranks["R"], together, self.tol * whole / scale if self.tol > 0 else 0.0)
        half = root(s[:, :rank])
        value = SlicedLowRank(u[:, :, :rank] * half[:, None, :], half[:, :, None] * vh[:, :rank, :])
        return Fit(value, relative(norm(s[:, rank:]), whole))


def slice_svd(
    tensor: Float[Array, "m k n"],
) -> tuple[Float[Array, "k m r"], Float[Array, "k r"], Float[Array, "k r n"]]:
    """The SVD of every slice tensor[:, s, :], all r = min(m, n) triplets, signs as in `truncated_svd`.

    >>> import numpy as np
    >>> u, s, vh = slice_svd(np.ones((2, 3, 2)))
    >>> u.shape, s.round(6)[:, 0]
    ((3, 2, 2), array([2., 2., 2.]))
    """
    xp = namespace(tensor)
    u, s, vh = left_svd(xp.permute_dims(tensor, (1, 0, 2)), min(tensor.shape[0], tensor.shape[2]))
    k, m, r = u.shape
    flat = xp.reshape(xp.permute_dims(u, (1, 0, 2)), (m, k * r))
    flat, rows = fix_signs(flat, xp.reshape(vh, (k * r, -1)))
    return xp.permute_dims(xp.reshape(flat, (m, k, r)), (1, 0, 2)), s, xp.reshape(rows, (k, r, -1))
