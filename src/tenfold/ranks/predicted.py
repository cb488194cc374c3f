"""The loss that ranks will bring, read off singular values before anything is decomposed.

The loss rises by scale · ‖X - X̂‖², in the metric of the data. With σ the singular values of unfoldings:

- one matrix (low rank):            Σ_{i>R} σᵢ², exact (Eckart & Young 1936), and summed over the slices of a
  matrix in slices;
- a tree (Tucker, tensor train, …): Σ_bonds Σ_{i>R_b} σ_{b,i}², an upper bound that HOSVD and TT-SVD keep
  (De Lathauwer et al. 2000, property 10; Oseledets 2011, theorem 2.2);
- CP:                               Σ_{i>R} σᵢ² over all slices, an upper bound (see `slice_spectrum`);
- with loops (rings, …):            Σ_modes Σ_{i>n} σ_{m,i}² with n the product of the bonds at the mode's
  factor. No unfolding can have a higher rank, so each term is a lower bound; the sum is an estimate.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float

from tenfold.core.network import Axis
from tenfold.ranks.budget import STORED, Budget
from tenfold.ranks.candidate import Candidate
from tenfold.ranks.curve import Point
from tenfold.ranks.spectra import tails

GROWTH = 1.05
"""By how much a rank grows at a step, or by one where that is more."""

Loss = Callable[[Mapping[Axis, int]], float]


def predicted(candidate: Candidate, terms: Budget, *, relative: bool = False) -> list[Point]:
    """Points of cost and predicted loss, with ranks that cost less than the dense weight.

    With `relative`, the loss is a fraction of that of leaving the weight out.

    >>> from tenfold.formats import LowRank
    >>> fc = Candidate("fc", LowRank, (4, 4), (), lambda: np.diag([2.0, 1.0, 1.0, 0.0]), scale=0.5)
    >>> predicted(fc, Budget(params=0.5))
    [(8, 1.0, 'fc', {'R': 1})]
    """
    if candidate.lowest(terms.unit) == candidate.cost(None, terms.unit):
        return []
    bonds = candidate.full.bonds
    points = _single(candidate, terms) if len(bonds) == 1 else _several(candidate, terms)
    whole = tails(candidate.spectra(bonds[0])[0])[0] if relative else 1.0
    scale = candidate.scale / whole if whole > 0 else 0.0
    return [(cost, scale * loss, name, ranks) for cost, loss, name, ranks in points]


def is_tree(candidate: Candidate) -> bool:
    """Whether every bond, when it is cut, leaves two parts."""
    return all(len(candidate.full.cut(b)) == 2 for b in candidate.full.bonds)


def _single(candidate: Candidate, terms: Budget) -> list[Point]:
    """Every rank of the one bond."""
    (bond,) = candidate.full.bonds
    left = tails(candidate.spectra(bond)[0] if is_tree(candidate) else candidate.slices)
    ranks = _sizes(candidate.full.ranks[bond], terms)
    costs = _costs(candidate, bond, ranks, terms)
    dense = candidate.cost(None, terms.unit)
    return [
        (cost, float(left[min(r, len(left) - 1)]), candidate.name, {bond: r})
        for r, cost in zip(ranks, costs, strict=True)
        if cost < dense
    ]


def _sizes(full: int, terms: Budget) -> list[int]:
    """The ranks to look at: all, but for what is asked one by one, FLOPs and latency, in steps of 2 %."""
    every = [1]
    while every[-1] < full:
        step = 1 if terms.unit in STORED else max(1, every[-1] // 50)
        every.append(min(full, every[-1] + step))
    return sorted({terms.trimmed(r, full) for r in every})


def _costs(candidate: Candidate, bond: Axis, ranks: list[int], terms: Budget) -> list[int]:
    """What every rank costs; the elements of factors grow by the same number with each rank."""
    if terms.unit not in STORED or candidate.stored is not None:
        return [candidate.cost({bond: r}, terms.unit) for r in ranks]
    first = candidate.cost({bond: 1}, terms.unit)
    each = candidate.cost({bond: 2}, terms.unit) - first if candidate.full.ranks[bond] > 1 else 0
    return [first + (r - 1) * each for r in ranks]


def _several(candidate: Candidate, terms: Budget) -> list[Point]:
    """Ranks from 1 up, each time with the step that saves most loss per cost."""
    loss = _tree_loss(candidate) if is_tree(candidate) else _looped_loss(candidate)
    dense = candidate.cost(None, terms.unit)
    points: list[Point] = []
    ranks: dict[Axis, int] | None = candidate.trimmed(dict.fromkeys(candidate.full.bonds, 1), terms)
    while ranks is not None and (cost := candidate.cost(ranks, terms.unit)) < dense:
        points.append((cost, loss(ranks), candidate.name, ranks))
        ranks = _best_growth(candidate, ranks, loss, terms)
    return points


def _best_growth(
    candidate: Candidate, ranks: Mapping[Axis, int], loss: Loss, terms: Budget
) -> dict[Axis, int] | None:
    """The step that saves most loss per cost; None if none saves any."""
    now, before = candidate.cost(ranks, terms.unit), loss(ranks)
    best, most = None, 0.0
    for grown in _growths(candidate, ranks, terms):
        gain = (before - loss(grown)) / max(1, candidate.cost(grown, terms.unit) - now)
        if gain > most:
            best, most = grown, gain
    return best


def _growths(candidate: Candidate, ranks: Mapping[Axis, int], terms: Budget) -> Iterator[dict[Axis, int]]:
    """Every bond one step up alone, and all together: three bonds of 1 can only leave 1 at once."""
    steps = {b: max(terms.next(r), math.ceil(GROWTH * r)) for b, r in ranks.items()}
    for b in ranks:
        yield candidate.trimmed({**ranks, b: steps[b]}, terms)
    yield candidate.trimmed(steps, terms)


def _tree_loss(candidate: Candidate) -> Loss:
    left = {b: tails(candidate.spectra(b)[0]) for b in candidate.full.bonds}
    return lambda ranks: sum(_at(left[b], r) for b, r in ranks.items())


def _looped_loss(candidate: Candidate) -> Loss:
    network = candidate.full
    holders = [next(f for f in network.factors if m in f) for m in network.modes]
    left = [tails(candidate.mode_spectrum(k)) for k in range(len(network.modes))]
    bonds = [[a for a in f if a in network.bonds] for f in holders]

    def loss(ranks: Mapping[Axis, int]) -> float:
        carried = (math.prod(ranks[b] for b in group) for group in bonds)
        return sum(_at(tail, n) for tail, n in zip(left, carried, strict=True))

    return loss


def _at(left: Float[np.ndarray, " k"], rank: int) -> float:
    return float(left[min(rank, len(left) - 1)])
