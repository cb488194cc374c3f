"""CP by alternating least squares with momentum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from tenfold.core.arrays import Array, constant, epsilon
from tenfold.core.errors import OptionError
from tenfold.core.network import Network
from tenfold.core.pieces import frobenius
from tenfold.decompose.base import Fit, Method, check_steps, methods, relative
from tenfold.decompose.cp.als import best_of
from tenfold.decompose.cp.gradient import attached
from tenfold.decompose.cp.grams import balanced, true_error
from tenfold.decompose.cp.init import STARTS, check_start
from tenfold.decompose.cp.sweep import sweep
from tenfold.formats import CP

WINDOW = 5
"""Momentum comes and goes, so that the progress of some sweeps is averaged."""


@methods.register("cp_nesterov")
@dataclass(frozen=True)
class CPNesterov(Method[CP]):
    """Sweeps of ALS that start from a point further along the last change, as in Nesterov's method.

    With S one sweep over all factors, z_k+1 = S(z_k + β_k (z_k - z_k-1)), where β_k grows from 0 towards 1:
    β_k = (t_k - 1) / t_k+1, t_k+1 = (1 + sqrt(1 + 4 t_k²)) / 2. Where a sweep raises the error it is dropped,
    the next one starts from the last point, and t is cut to a quarter (restart).

    For approximations of moderate accuracy at high rank, such as those of kernels: at the cost of a sweep of
    `CPALS` it needs 3 to 10 times fewer of them, also in swamps; `CPGN` needs fewer still where the tensor
    has the rank.

    Stops (`converged`) when five sweeps change the error by less than `tol` each, on average and relative to
    it. `start` is where it
    begins ("gevd", "hosvd", "slices", "random"); of several `restarts` the best is kept, all but the first
    from random factors. The norms of a component are spread evenly over its vectors.

    Cost of a sweep: two passes over the tensor of O(size · rank), and O(order · rank³); memory: at most as
    much as the tensor for intermediates, and some eight times the factors.

    Source: Mitchell, Ye & De Sterck, 'Nesterov acceleration of alternating least squares for canonical tensor
    decomposition', 2020, arXiv:1810.05846; Nesterov 1983.

    >>> import numpy as np
    >>> x = CP.random((5, 6, 7), 4, like=np.zeros(()), generator=0).dense()
    >>> CPNesterov(tol=1e-4, max_steps=1000)(x, 4, generator=0).error < 1e-10
    True
    """

    format: ClassVar = CP
    levels: ClassVar = True
    tol: float = 1e-5
    max_steps: int = 100
    start: str = "hosvd"
    restarts: int = 1

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        check_start(self.start)
        if self.tol < 0 or self.restarts < 1:
            raise OptionError(
                f"{self} has an option below its range.", "Give tol of 0 or more, and restarts of 1 or more."
            )

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[CP]:
        rank, fixed = network.ranks["R"], constant(tensor)
        starts = [self.start] + ["random"] * (self.restarts - 1)
        best = best_of(self.improved(fixed, STARTS[how](fixed, rank, generator)) for how in starts)
        return replace(best, value=CP(attached(tensor, best.value.matrices)))

    def improved(self, tensor: Array, factors: Sequence[Array]) -> Fit[CP]:
        """The fit from these factors on."""
        whole = frobenius(tensor)
        if whole == 0:
            return Fit(CP(tuple(0 * f for f in factors)), 0.0, 0)
        state = Momentum(balanced(factors), balanced(factors), math.inf, 1.0)
        trace: list[float] = []
        converged = False
        while not converged and len(trace) < self.max_steps:
            state = moved(tensor, state, whole)
            trace.append(relative(state.error, whole))
            drop = trace[-1 - WINDOW] - trace[-1] if len(trace) > WINDOW else math.inf
            converged = drop <= WINDOW * self.tol * trace[-1] or trace[-1] <= 4 * epsilon(tensor)
        error = true_error(tensor, state.point)
        return Fit(CP(tuple(state.point)), error, len(trace), converged, tuple(trace))


class Momentum(NamedTuple):
    """The best point so far and its error, from where to sweep next, and how much momentum there is."""

    point: list[Array]
    ahead: list[Array]
    error: float
    t: float

    @property
    def plain(self) -> bool:
        """Whether the next sweep starts from the point itself."""
        return self.ahead is self.point


def moved(tensor: Array, state: Momentum, whole: float) -> Momentum:
    """After one more sweep."""
    factors, error = sweep(tensor, state.ahead, whole)
    if error > state.error and not state.plain:
        return state._replace(ahead=state.point, t=max(1.0, state.t / 4))
    factors = balanced(factors)
    t = (1 + math.sqrt(1 + 4 * state.t**2)) / 2
    beta = (state.t - 1) / t
    ahead = [f + beta * (f - old) for f, old in zip(factors, state.point, strict=True)]
    return Momentum(factors, ahead if beta > 0 else factors, error, t)
