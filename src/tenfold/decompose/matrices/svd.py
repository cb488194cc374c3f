"""Low-rank approximation of a matrix, exact and randomised."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.core.arrays import Array, adjoint, root
from tenfold.core.errors import OptionError
from tenfold.core.network import Network
from tenfold.core.noise import normal
from tenfold.core.svd import column_basis, fix_signs, rank_within, truncated_svd
from tenfold.decompose.base import Fit, Method, check_tolerance, methods, norm, relative, settled
from tenfold.formats import LowRank


@methods.register("svd")
@dataclass(frozen=True)
class TruncatedSVD(Method[LowRank]):
    """The best approximation of a given rank, or the smallest rank within a relative error `tol`.

    The square roots of the singular values go to both factors, which keeps their scales equal for training
    and quantization. For matrices whose smaller side is below some thousand; `RandomizedSVD` for small ranks
    of larger ones.

    Cost: O(m n min(m, n)). Memory: a few times the smaller side squared, or the matrix for all digits.

    Source: Eckart & Young 1936.

    >>> import numpy as np
    >>> fit = TruncatedSVD()(np.diag([3.0, 4.0, 0.0]), 1)
    >>> fit.value.ranks, round(fit.error, 12)
    ({'R': 1}, 0.6)
    """

    format: ClassVar = LowRank
    tolerant: ClassVar = True
    tol: float = 0.0

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[LowRank]:
        u, s, vh = truncated_svd(tensor, min(tensor.shape))
        whole = norm(s)
        rank = rank_within(network.ranks["R"], s, self.tol * whole if self.tol > 0 else 0.0)
        return Fit(balanced(u[:, :rank], s[:rank], vh[:rank, :]), relative(norm(s[rank:]), whole))


@methods.register("randomized_svd")
@dataclass(frozen=True)
class RandomizedSVD(Method[LowRank]):
    """Nearly the best approximation of a rank, with passes over the matrix instead of its full SVD.

    Power iterations, with QR factorisations in between, go on until one of them lowers the error by less
    than the fraction `check` (`converged`), at most `max_power_iterations`. Worth it for ranks below a tenth
    of the matrix's sizes.

    Cost: O(m n (rank + oversampling)) an iteration. Memory: two thin matrices beside the matrix.

    Source: Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1, arXiv:0909.4061.

    >>> import numpy as np
    >>> x = np.outer(np.arange(1.0, 9.0), np.ones(5))
    >>> RandomizedSVD()(x, 1, generator=0).error < 1e-12
    True
    """

    format: ClassVar = LowRank
    oversampling: int = 8
    check: float = 0.01
    max_power_iterations: int = 8

    def __post_init__(self) -> None:
        if self.oversampling < 0 or self.max_power_iterations < 1 or not 0 <= self.check < 1:
            raise OptionError(
                f"{self} has an option out of range.", "Give 0 <= check < 1 and counts above 0."
            )

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[LowRank]:
        rank = network.ranks["R"]
        width = min(rank + self.oversampling, *tensor.shape)
        whole, left = (
            norm(tensor),
            tensor @ normal((tensor.shape[1], width), like=tensor, generator=generator),
        )
        trace: list[float] = []
        while True:
            basis = column_basis(left)
            inner, s, vh = truncated_svd(adjoint(basis) @ tensor, rank)
            u, vh = fix_signs(basis @ inner, vh)
            trace.append(relative(norm(tensor - (u * s) @ vh), whole))
            converged = len(trace) > 1 and trace[-1] >= (1 - self.check) * trace[-2]
            if settled(converged) or len(trace) > self.max_power_iterations:
                return Fit(balanced(u, s, vh), trace[-1], len(trace), converged, tuple(trace))
            left = tensor @ column_basis(adjoint(tensor) @ basis)


def balanced(u: Array, s: Array, vh: Array) -> LowRank:
    """U sqrt(S) and sqrt(S) Vᴴ."""
    half = root(s)
    return LowRank(u * half, half[:, None] * vh)
