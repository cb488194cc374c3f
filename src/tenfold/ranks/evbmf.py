"""Ranks that variational Bayes finds in the noise of each weight."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tenfold.core.errors import OptionError
from tenfold.core.network import Axis
from tenfold.ranks.base import RankRule, rules
from tenfold.ranks.budget import EVERYTHING, Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.energy import rank_keeping
from tenfold.ranks.spectra import Spectrum
from tenfold.ranks.threshold import met


@rules.register("evbmf")
@dataclass(frozen=True)
class EVBMF(RankRule):
    """The analytic rank of empirical variational Bayes for the unfolding at every bond, weakened.

    R_weak = R - weakening · (R - R_evbmf), with R the full rank (MUSCO): 0 keeps all, 1 is the analytic rank.
    Where that is 0, because the weight looks like noise alone, the rank at the energy `keep` takes its
    place. A budget takes the place of `weakening`: the least that is within it is found by bisection;
    beyond 1, the analytic ranks shrink in proportion, to ranks of 1 at 2. Of several candidates for a site,
    the one that costs least is taken; for CP, the largest of the modes' ranks; in slices, of the slices'.

    Source: Nakajima et al., JMLR 14, 2013; Kim et al. 2016, arXiv:1511.06530; Gusak et al. 2019 (MUSCO),
    arXiv:1903.09973.

    >>> from tenfold.formats import LowRank
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 4)) @ rng.normal(size=(4, 80)) + 0.1 * rng.normal(size=(64, 80))
    >>> EVBMF(weakening=1.0)([Candidate("fc", LowRank, (64, 80), (), lambda: x)], None)
    {'fc': {'R': 4}}
    """

    weakening: float = 0.8
    keep: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.weakening <= 1:
            raise OptionError(f"weakening came as {self.weakening}.", "0 keeps all ranks, 1 weakens nothing.")
        if not 0 < self.keep <= 1:
            raise OptionError(f"keep came as {self.keep}.", "Give the fraction of the energy, in (0, 1].")

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks at the weakening, or at the least one within the budget."""
        found = {c.name: self._analytic(c) for c in candidates}

        def wish(c: Candidate, weakening: float) -> Mapping[Axis, int]:
            return {b: weakened(n, found[c.name][b], weakening) for b, n in c.full.ranks.items()}

        wanted = self.weakening if budget is None else 0.0
        return met(candidates, budget or EVERYTHING, wish, wanted=wanted, spared=2.0)

    def _analytic(self, candidate: Candidate) -> dict[Axis, int]:
        network = candidate.full
        size = candidate.dense // network.product(network.slices)
        return {b: max(self._rank(s, size) for s, _ in candidate.operators(b)) for b in network.bonds}

    def _rank(self, spectrum: Spectrum, size: int) -> int:
        """For a matrix of `size` entries."""
        return evbmf_rank(spectrum, size // len(spectrum)) or rank_keeping(spectrum, self.keep)


def weakened(full: int, analytic: int, weakening: float) -> int:
    """From the full rank at 0 by the analytic one at 1 to a rank of 1 at 2.

    >>> [weakened(100, 10, w) for w in (0.0, 0.8, 1.0, 1.5, 2.0)]
    [100, 28, 10, 5, 1]
    """
    if weakening <= 1:
        return max(1, int(full - weakening * (full - analytic) + 1e-9))
    return max(1, int((2 - weakening) * analytic))


def evbmf_rank(singular_values: Spectrum, columns: int) -> int:
    """The number of singular values that stand out of the noise, whose variance is estimated too.

    For an L × M matrix, L ≤ M, with α = L / M, τ̄ = 2.5129 √α and x̄ = (1 + τ̄)(1 + α / τ̄), a singular value s
    is signal where s² > M σ² x̄; σ² is the minimum of the free energy between two bounds. `singular_values`
    are all L, in descending order, and `columns` is M. It is 0 for pure noise, and does not depend on the
    scale of the matrix.

    Source: Nakajima et al., JMLR 14, 2013, theorems 2 and 4.

    >>> evbmf_rank(np.array([9.0, 8.0, 1.1, 1.05, 1.0, 0.95]), 6)
    2
    """
    s2 = np.asarray(singular_values, dtype=np.float64) ** 2
    if not s2[0] > 0:
        return 0
    s2 = np.maximum(s2, (np.finfo(np.float64).eps ** 2) * s2[0])
    alpha = len(s2) / columns
    tau = 2.5129 * math.sqrt(alpha)
    bound = (1 + tau) * (1 + alpha / tau)
    noise = _noise(s2, columns, alpha, bound)
    return int(np.sum(s2 > columns * noise * bound))


def _noise(s2: Float[np.ndarray, " L"], columns: int, alpha: float, bound: float) -> float:
    """The variance of least free energy, which may have several minima, on grids that close in on it."""
    rows = len(s2)
    first = min(math.ceil(rows / (1 + alpha)) - 1, rows - 1)
    upper = s2.sum() / (rows * columns)
    lower = min(upper, max(s2[first] / (columns * bound), s2[first:].mean() / columns))
    for _ in range(5):
        grid = np.geomspace(lower, upper, 64)
        k = int(np.argmin([_free_energy(s2 / (columns * v), alpha, bound) for v in grid]))
        lower, upper = grid[max(k - 1, 0)], grid[min(k + 1, 63)]
    return float(grid[k])


def _free_energy(x: Float[np.ndarray, " L"], alpha: float, bound: float) -> float:
    """Its part that depends on the noise, for x = s² / (M σ²)."""
    noise, signal = x[x <= bound], x[x > bound]
    z = signal - (1 + alpha)
    tau = 0.5 * (z + np.sqrt(z**2 - 4 * alpha))
    energy = np.sum(noise - np.log(noise)) + np.sum(signal - tau)
    return float(energy + np.sum(np.log((tau + 1) / signal)) + alpha * np.sum(np.log(tau / alpha + 1)))
