"""CP by alternating least squares on rows that are drawn by their leverage."""

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from tenfold.core.arrays import Array, constant, device_of, epsilon, namespace
from tenfold.core.errors import OptionError
from tenfold.core.network import Network
from tenfold.core.noise import normal
from tenfold.core.sparse import Sparse
from tenfold.decompose.base import Fit, Method, check_steps, methods, norm, number, relative
from tenfold.decompose.cp.gradient import attached
from tenfold.decompose.cp.grams import balanced, true_error
from tenfold.decompose.cp.leverage_scores import drawn
from tenfold.decompose.cp.sampled_fibres import Fibres, estimated_square, fibres_of, sampled_solution
from tenfold.decompose.entries.sparse_residual import sparse_residual
from tenfold.formats import CP

STARTS = ("range", "random")


@methods.register("cp_leverage")
@dataclass(frozen=True)
class CPLeverage(Method[CP]):
    """Alternating least squares that looks at a sample of the fibres: for large, above all sparse tensors.

    Each factor solves its least-squares problem with `samples` rows of the Khatri–Rao product K of the
    others, drawn by the products of their leverage scores, which bound those of K, and with the fibres of X
    that belong to them. With s rows and rank R the square of the residual is on average R / s above the
    least. Rows that would be drawn once on average are taken for certain (`certain`), which matters where
    leverage is concentrated, as in sparse data; repeated rows are combined. The sampled problem is solved by
    QR. Where K has no more rows than `samples`, all are taken, which is ordinary alternating least squares.

    Stops (`converged`) when the error, estimated from `fit_samples` entries that are drawn once, has not
    improved by `tol` relative to it for `patience` sweeps; the best sweep is kept. `Fit.error` is the true
    error over all entries, `trace` the estimates. For sparse tensors half of these entries are zeros, and the
    true error is accurate to about 1e-7 (1e-3 in float32), see `sparse_residual`. `start` is "range", random
    combinations of random fibres, or "random"; of several `restarts`, all but the first random, the best is
    kept.

    `samples` defaults to 2000, or 200 for each component if that is more. The error stays about
    R / (2 samples) above that of ALS; refine with `CPALS` or `CPGN` if that matters.

    Cost of a sweep: O(Σ sizes · samples · rank) operations, whatever the size of the tensor, and
    O(samples · rank²); for sparse tensors only the entries that lie in the fibres. The last error is one
    pass over the tensor. Memory: the tensor, the sampled fibres and, of a sparse tensor, its entries sorted
    by fibre, once for each mode.

    Source: Larsen & Kolda, 'Practical leverage-based sampling for low-rank tensor decomposition', SIAM J.
    Matrix Anal. 43(3), 2022, arXiv:2006.16438.

    Raises:
        UnsupportedError: if the fibres of a mode are too many to be numbered.

    >>> import numpy as np
    >>> x = CP.random((20, 30, 40), 2, like=np.zeros(()), generator=0).dense()
    >>> CPLeverage(samples=100, tol=1e-9)(x, 2, generator=0).error < 1e-6
    True
    """

    format: ClassVar = CP
    levels: ClassVar = True
    accepts: ClassVar = (Sparse,)
    samples: int | None = None
    tol: float = 1e-4
    max_steps: int = 100
    patience: int = 10
    fit_samples: int = 2**14
    start: str = "range"
    restarts: int = 1
    certain: bool = True

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        if self.start not in STARTS:
            raise OptionError(f"start came as {self.start!r}.", f"Choose one of {', '.join(STARTS)}.")
        counts = (self.patience, self.fit_samples, self.restarts, 1 if self.samples is None else self.samples)
        if self.tol < 0 or min(counts) < 1:
            raise OptionError(
                f"{self} has an option below its range.", "Give tol of 0 or more, and counts of 1 or more."
            )

    def _fit(self, tensor: Array | Sparse, network: Network, generator: Any) -> Fit[CP]:
        rank = network.ranks["R"]
        fixed = tensor.map(constant) if isinstance(tensor, Sparse) else constant(tensor)
        fibres = fibres_of(fixed)
        whole = norm(fibres.like)
        if whole == 0:
            zero = [
                namespace(fibres.like).zeros((n, rank), dtype=tensor.dtype, device=device_of(fibres.like))
                for n in tensor.shape
            ]
            return Fit(CP(tuple(zero)), 0.0)
        starts = [self.start] + ["random"] * (self.restarts - 1)
        found = [self._run(fibres, rank, whole, how, generator) for how in starts]
        best = min(found, key=lambda fit: min(fit.trace))
        if isinstance(tensor, Sparse):
            return Fit(
                best.value, sparse_residual(fixed, best.value) / whole, best.steps, best.converged, best.trace
            )
        error = true_error(fixed, best.value.matrices)
        return Fit(CP(attached(tensor, best.value.matrices)), error, best.steps, best.converged, best.trace)

    def _run(self, fibres: Fibres, rank: int, whole: float, start: str, generator: Any) -> Fit[CP]:
        """The sweep with the least estimated error."""
        entries = fibres.some_entries(self.fit_samples, generator)
        factors = started(fibres, rank, start, generator)
        best, waited, target = factors, 0, float("inf")
        trace: list[float] = []
        while waited < self.patience and len(trace) < self.max_steps:
            factors = self._swept(fibres, balanced(factors), generator)
            trace.append(relative(number(estimated_square(entries, factors)) ** 0.5, whole))
            if trace[-1] <= min(trace):
                best = factors
            waited = 0 if trace[-1] < (1 - self.tol) * target else waited + 1
            target = min(target, trace[-1]) if waited == 0 else target
            if trace[-1] <= 4 * epsilon(fibres.like):
                waited = self.patience
        return Fit(CP(tuple(balanced(best))), min(trace), len(trace), waited >= self.patience, tuple(trace))

    def _swept(self, fibres: Fibres, factors: list[Array], generator: Any) -> list[Array]:
        """Every factor renewed once."""
        rank = factors[0].shape[1]
        count = max(2000, 200 * rank) if self.samples is None else max(self.samples, rank)
        for mode in range(len(factors)):
            others = [factors[k] for k in fibres.others(mode)]
            if not others:
                return [fibres.projected(0, *_single(fibres, rank))]
            sample = drawn(others, count, generator, certain=self.certain)
            factors = [*factors[:mode], sampled_solution(fibres, factors, mode, sample), *factors[mode + 1 :]]
        return factors


def _single(fibres: Fibres, rank: int) -> tuple[Array, Array]:
    """The one fibre of a vector, shared evenly by the components."""
    xp = namespace(fibres.like)
    one = xp.ones((1, rank), dtype=fibres.like.dtype, device=device_of(fibres.like))
    return xp.zeros((1,), dtype=xp.asarray(0).dtype, device=device_of(fibres.like)), one / rank


def started(fibres: Fibres, rank: int, how: str, generator: Any) -> list[Array]:
    """Normal factors, or random combinations of some fibres of every mode."""
    shape = fibres.shape
    if how == "random" or len(shape) == 1:
        return [normal((n, rank), like=fibres.like, generator=generator) for n in shape]
    return [_in_range(fibres, k, rank, generator) for k in range(len(shape))]


def _in_range(fibres: Fibres, mode: int, rank: int, generator: Any) -> Array:
    """Each column a random combination of fibres, those of random entries; of unit length."""
    xp = namespace(fibres.like)
    columns, _, _ = fibres.some_entries(min(20 * rank, prod(fibres.shape)), generator)
    numbers = columns[fibres.others(mode)[0]]
    for k in fibres.others(mode)[1:]:
        numbers = numbers * fibres.shape[k] + columns[k]
    mix = normal((numbers.shape[0], rank), like=fibres.like, generator=generator)
    factor = fibres.projected(mode, numbers, mix)
    size = xp.linalg.vector_norm(factor, axis=0)
    noise = normal(factor.shape, like=factor, generator=generator) / factor.shape[0] ** 0.5
    return xp.where(size > 0, factor / xp.where(size > 0, size, xp.ones_like(size)), noise) + 1e-3 * noise
