"""The nearest sum of Kronecker products, by rearranging blocks into rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from tenfold.algebra import split_blocks
from tenfold.core.arrays import Array, adjoint, lengths, namespace
from tenfold.core.leading import leading
from tenfold.core.network import Network
from tenfold.core.pieces import frobenius
from tenfold.decompose.base import Fit, Method, check_tolerance, methods, relative
from tenfold.decompose.cuts import share_of
from tenfold.formats import KroneckerSum, Ranks


@methods.register("kronecker_svd")
@dataclass(frozen=True)
class KroneckerSVD(Method[KroneckerSum]):
    """The best sum of Kronecker products of a given length, or the shortest within a relative error `tol`.

    Takes the blocks, a tensor of shape (a0, a1, …, b0, b1, …) as `tenfold.algebra.split_blocks` makes it;
    `nearest_kronecker` starts from the matrix or tensor itself. ‖X - Σ A(r) ⊗ B(r)‖ is the distance of the
    matrix of all blocks, one a row, from Σ vec A(r) vec B(r)ᵀ, so that its truncated SVD is optimal. For
    weights with a pattern that repeats from block to block. The square roots of the singular values go to
    both factors.

    Cost for N entries in blocks of size b: O(N min(b, N/b)). Memory: the smaller side squared, and pieces.

    Source: Van Loan & Pitsianis, 'Approximation with Kronecker products', 1993, theorem 2.1.

    >>> import numpy as np
    >>> blocks = split_blocks(np.kron(np.eye(2), np.ones((2, 3))), (2, 2))
    >>> KroneckerSVD()(blocks, 1).error < 1e-14
    True
    """

    format: ClassVar = KroneckerSum
    tolerant: ClassVar = True
    levels: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[KroneckerSum]:
        xp, half, whole = namespace(tensor), tensor.ndim // 2, frobenius(tensor)
        outer, inner = tensor.shape[:half], tensor.shape[half:]
        matrix = xp.reshape(tensor, (prod(outer), prod(inner)))
        basis, lost = leading(matrix, 0, network.ranks["R"], share_of(self.tol, whole, network))
        left, right = balanced(basis, adjoint(basis) @ matrix)
        factors = (xp.reshape(left.T, (-1, *outer)), xp.reshape(right, (-1, *inner)))
        return Fit(KroneckerSum(*factors), relative(lost, whole))


def nearest_kronecker(
    tensor: Array, outer: Sequence[int], ranks: Ranks | None = None, *, tol: float = 0.0
) -> Fit[KroneckerSum]:
    """The sum of Kronecker products A(r) ⊗ B(r) nearest to a matrix, or a tensor of any order.

    The A(r) have the shape `outer`, which must divide that of `tensor`; the B(r) have what is left. `merged`
    of the fit's value has the shape of `tensor`.

    Raises:
        ShapeError: unless `outer` has one divisor for each mode.
        RankError: if neither ranks nor a tolerance came.

    >>> import numpy as np
    >>> a, b = np.arange(1.0, 7.0).reshape(2, 3), np.arange(1.0, 5.0).reshape(2, 2)
    >>> fit = nearest_kronecker(np.kron(a, b), (2, 3), 1)
    >>> fit.value.left.shape, bool(np.allclose(fit.value.merged(), np.kron(a, b)))
    ((1, 2, 3), True)
    """
    return KroneckerSVD(tol)(split_blocks(tensor, outer), ranks)


def balanced(basis: Array, rows: Array) -> tuple[Array, Array]:
    """U and S Vᴴ as U sqrt(S) and sqrt(S) Vᴴ."""
    xp = namespace(basis)
    s = lengths(rows, axis=1)
    positive = s > 0
    root = xp.sqrt(xp.where(positive, s, 1.0))
    return basis * xp.where(positive, root, 0.0), rows / root[:, None]
