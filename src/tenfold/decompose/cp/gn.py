"""CP by Gauss–Newton steps on all factors at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tenfold.core.arrays import Array, constant, epsilon
from tenfold.core.errors import OptionError
from tenfold.core.network import Network
from tenfold.core.sparse import Sparse
from tenfold.decompose.base import Fit, Method, methods
from tenfold.decompose.cp.als import best_of
from tenfold.decompose.cp.gevd import least_squares
from tenfold.decompose.cp.gradient import attached
from tenfold.decompose.cp.grams import true_error
from tenfold.decompose.cp.init import STARTS, check_start
from tenfold.decompose.cp.local import CPProblem
from tenfold.decompose.cp.ridge import penalties, ridged
from tenfold.decompose.cp.sparse import SparseSearch, sparse_gauss_newton
from tenfold.decompose.gauss_newton import GaussNewton
from tenfold.decompose.local_problem import Point
from tenfold.formats import CP

ROUGH = 1e-4
"""Relative decrease of the value at which the penalty is lowered."""
EXACT = 1e4
"""Times eps: an error that no other start can lower."""


@methods.register("cp_gn")
@dataclass(frozen=True)
class CPGN(Method[CP]):
    """All factors move at once, by Gauss–Newton steps in a trust region: for accuracy, and out of swamps.

    Where alternating least squares takes hundreds of sweeps through collinear components, or merges two of
    them and loses a third, this takes tens of steps. Near an exact decomposition it converges quadratically,
    to full precision. Of 20 × 20 × 20 tensors of rank 5 whose vectors have cosines of 0.9, ALS needs 400
    to 600 sweeps, this 27 steps from a random start and 1 to 6 from "gevd".

    A step p solves JᴴJ p = -g by at most `cg_steps` conjugate gradients, see `GaussNewton`; the products with
    JᴴJ do not touch the tensor, see `tenfold.decompose.cp.local`. With at most `explicit` unknowns, JᴴJ is
    formed and solved. `damped` takes Levenberg–Marquardt steps instead of a trust region, for tensors with
    families of decompositions. `ridge` begins with a penalty on the factors, which is lowered in six stages
    to nothing, for tensors whose components would run away, see `tenfold.decompose.cp.ridge`. With both
    (`damped=True, ridge=0.003, cg_steps=60, start="random"`), two in three random starts find a
    multiplication of 3 × 3 matrices with 23 products, after 60 to 120 steps.

    Stops (`converged`) when steps change the error by less than `tol` relative to it. `start` is where it
    begins ("gevd", "hosvd", "slices", "random"); of several `restarts`, up to one that is exact, the best is
    kept, all but the first from random factors. The norms of a component are spread evenly over its vectors.

    Sparse tensors cost a sparse MTTKRP in the place of a pass, and no memory beyond them; steps end where the
    error is about 1e-8 of the norm, below which it cannot be told without a dense tensor.

    Cost of a step: 2 to 4 passes over the tensor of O(size · rank), and `cg_steps` products of
    O(order · rank² · (sum of the sizes + order · rank)); memory: at most as much as the tensor for
    intermediates, and some fifteen times the factors.

    Source: Sorber, Van Barel & De Lathauwer, SIAM J. Optim. 23(2), 2013; Phan, Tichavský & Cichocki, SIAM
    J. Matrix Anal. 34(1), 2013.

    >>> import numpy as np
    >>> x = CP.random((5, 6, 7), 4, like=np.zeros(()), generator=0).dense()
    >>> CPGN(start="random")(x, 4, generator=0).error < 1e-12
    True
    """

    format: ClassVar = CP
    levels: ClassVar = True
    accepts: ClassVar = (Sparse,)
    tol: float = 1e-5
    max_steps: int = 200
    start: str = "gevd"
    restarts: int = 1
    cg_steps: int = 20
    explicit: int = 100
    damped: bool = False
    ridge: float = 0.0

    def __post_init__(self) -> None:
        self._search()
        check_start(self.start)
        if self.restarts < 1 or min(self.explicit, self.ridge) < 0:
            raise OptionError(
                f"{self} has an option below its range.",
                "Give restarts of 1 or more, and explicit and ridge of 0 or more.",
            )

    def _search(self) -> GaussNewton:
        return GaussNewton(self.max_steps, 2 * self.tol, cg_steps=self.cg_steps, damped=self.damped)

    def _fit(self, tensor: Array | Sparse, network: Network, generator: Any) -> Fit[CP]:
        if isinstance(tensor, Sparse):
            return self._fit_sparse(tensor, network.ranks["R"], generator)
        rank, fixed = network.ranks["R"], constant(tensor)
        starts = [self.start] + ["random"] * (self.restarts - 1)
        fits = (self.improved(fixed, STARTS[how](fixed, rank, generator)) for how in starts)
        best = best_of(up_to_exact(fits, epsilon(fixed)))
        return replace(best, value=CP(attached(tensor, best.value.matrices)))

    def _fit_sparse(self, tensor: Sparse, rank: int, generator: Any) -> Fit[CP]:
        """The same steps over the entries alone; starts but "random" are bases of the unfoldings' ranges."""
        starts = [self.start] + ["random"] * (self.restarts - 1)
        searches = replace(self._search(), tol=ROUGH), self._search()
        run = SparseSearch(*searches, self.explicit, self.ridge)
        return best_of(sparse_gauss_newton(tensor, rank, how, run, generator) for how in starts)

    def improved(self, tensor: Array, factors: Sequence[Array]) -> Fit[CP]:
        """The fit from these factors on."""
        problem = CPProblem(tensor, self.explicit)
        if problem.whole == 0:
            return Fit(CP(tuple(0 * f for f in factors)), 0.0, 0)
        point: Point = (least_squares(tensor, factors, 0), *factors[1:])
        steps, values = 0, list[float]()
        for penalty in penalties(problem, self.ridge):
            found = replace(self._search(), tol=ROUGH)(ridged(problem, penalty), point)
            point, steps, values = found.point, steps + found.steps, [*values, *found.trace]
        found = self._search()(problem.at, point)
        errors = tuple((2 * max(value, 0.0)) ** 0.5 / problem.whole for value in (*values, *found.trace))
        error = true_error(tensor, found.point)
        return Fit(CP(found.point), error, steps + found.steps, found.converged, errors)


def up_to_exact(fits: Iterable[Fit[CP]], eps: float) -> Iterator[Fit[CP]]:
    """Fits until one is exact but for rounding errors, with that one."""
    for fit in fits:
        yield fit
        if fit.error <= EXACT * eps:
            return
