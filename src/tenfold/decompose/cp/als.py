"""CP by alternating least squares."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from math import inf
from typing import Any, ClassVar

from tenfold.core.arrays import Array, epsilon
from tenfold.core.errors import OptionError
from tenfold.core.network import Network
from tenfold.core.pieces import frobenius
from tenfold.core.sparse import Sparse
from tenfold.decompose.base import Fit, Method, check_steps, methods, relative, settled
from tenfold.decompose.cp.grams import balanced, true_error
from tenfold.decompose.cp.init import STARTS, check_start
from tenfold.decompose.cp.sparse import CPSweeps, sparse_als
from tenfold.decompose.cp.sweep import sweep
from tenfold.formats import CP

FLOOR = 1000
"""Times eps: an error below which a sweep that raises it shows nothing but rounding."""


@methods.register("cp_als")
@dataclass(frozen=True)
class CPALS(Method[CP]):
    """Each factor in turn solves its least-squares problem; the Khatri–Rao product is never formed.

    For factor A, with Γ the Hadamard product of the other factors' Gram matrices and ε the relative error,

        A (Γ + damping μ I + ridge ε² diag Γ) = MTTKRP(X) + damping μ A,     μ = trace(Γ) / rank

    `damping` keeps the step short where Γ is nearly singular, and does not move the solution. `ridge` does;
    it penalises the sum of the squared norms of the components, which grow where components cancel one
    another, to the harm of fine-tuning and low precision. Being relative to the squared error, as a prior is
    to noise, it vanishes where the tensor has the rank. On kernels of convolutions the default lowers the sum
    of the norms by a third to a half; after 100 sweeps the error is 4 % lower where 0.8 of the parameters are
    kept, and 0.1 % higher where 0.1 are. (A multiple of the identity would drive weak components to zero.)

    Γ is solved by Cholesky's factorisation, and where that would lose half the digits, as for collinear
    components, the Khatri–Rao product itself by QR, see `tenfold.decompose.cp.sweep`.

    Stops (`converged`) when a sweep changes the error by less than `tol` relative to it. `start` is where it
    begins ("gevd", "hosvd", "slices", "random"); of several `restarts` the best is kept, all but the first
    from random factors. The norms of a component are spread evenly over its vectors.

    For approximations of moderate accuracy at high rank, such as those of kernels. Collinear components take
    hundreds of sweeps: `CPGN`, or `CPD`, which chooses by itself.

    Sparse tensors cost O(order · entries · rank) for each factor, and no memory beyond them; their error is
    accurate to about 1e-8 of the norm, see `tenfold.decompose.entries.sparse_residual`.

    Cost of a sweep: two passes over the tensor of O(size · rank), and O(order · rank³); memory: at most as
    much as the tensor for intermediates, see `mttkrp`, and a few times the factors.

    Source: Carroll & Chang 1970; Harshman 1970; Kolda & Bader, SIAM Review 51(3), 2009, figure 3.3; damping
    as in Li, Kindermann & Navasca, 'Some convergence results on the regularized alternating least-squares
    method', 2013.

    >>> import numpy as np
    >>> x = CP.random((5, 6, 7), 2, like=np.zeros(()), generator=0).dense()
    >>> CPALS(tol=1e-9, max_steps=500)(x, 2, generator=0).error < 1e-6
    True
    """

    format: ClassVar = CP
    levels: ClassVar = True
    accepts: ClassVar = (Sparse,)
    tol: float = 1e-5
    max_steps: int = 100
    start: str = "hosvd"
    restarts: int = 1
    damping: float = 0.0
    ridge: float = 0.03

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        check_start(self.start)
        if min(self.tol, self.damping, self.ridge) < 0 or self.restarts < 1:
            raise OptionError(
                f"{self} has an option below its range.", "Give 0 or more, and restarts of 1 or more."
            )

    def _fit(self, tensor: Array | Sparse, network: Network, generator: Any) -> Fit[CP]:
        rank = network.ranks["R"]
        if isinstance(tensor, Sparse):
            return self._fit_sparse(tensor, rank, generator)
        starts = [self.start] + ["random"] * (self.restarts - 1)
        return best_of(self._run(tensor, STARTS[how](tensor, rank, generator)) for how in starts)

    def _fit_sparse(self, tensor: Sparse, rank: int, generator: Any) -> Fit[CP]:
        """The same sweeps over the entries alone; starts but "random" are bases of the unfoldings' ranges."""
        starts = [self.start] + ["random"] * (self.restarts - 1)
        options = CPSweeps(self.tol, self.max_steps, self.damping, self.ridge)
        return best_of([sparse_als(tensor, rank, how, options, generator) for how in starts])

    def _run(self, tensor: Array, factors: list[Array]) -> Fit[CP]:
        whole = frobenius(tensor)
        trace: list[float] = []
        converged = settled(whole == 0)
        factors = [0 * f for f in factors] if converged else factors
        while not converged and len(trace) < self.max_steps:
            ridge = self.ridge * (trace[-1] if trace else 1.0) ** 2
            factors, error = sweep(tensor, balanced(factors), whole, ridge=ridge, damping=self.damping)
            trace.append(relative(error, whole))
            converged = len(trace) > 1 and settled(abs(trace[-2] - trace[-1]) <= self.tol * trace[-1])
            converged = converged or _is_rounding(trace, epsilon(tensor))
        factors = balanced(factors)
        return Fit(CP(tuple(factors)), true_error(tensor, factors), len(trace), converged, tuple(trace))


def _is_rounding(trace: list[float], eps: float) -> bool:
    """Whether the error is one of rounding: of its size, or near it and raised, as no exact sweep does."""
    last, before = trace[-1], trace[-2] if len(trace) > 1 else inf
    return settled(last <= 4 * eps) or (settled(last <= FLOOR * eps) and settled(last >= before))


def best_of(fits: Iterable[Fit[CP]]) -> Fit[CP]:
    """The fit with the least error; the first one where errors are traced and have no values."""
    return reduce(lambda a, b: b if settled(b.error < a.error) else a, fits)
