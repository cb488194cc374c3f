"""One point of every curve, so that the budget is met and the loss is small."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tenfold.ranks.base import FLOOR, allowed, shares
from tenfold.ranks.budget import Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.curve import Curve

Curves = Mapping[str, Curve]
Solver = Callable[[Curves, int], dict[str, int]]
"""Curves and the limit in, site -> index of a point out."""


def allotted(
    candidates: Sequence[Candidate], curves: Curves, budget: Budget, solve: Solver
) -> dict[str, Allotment]:
    """The ranks that `solve` finds on the curves, of which the part below the floor is left out.

    Raises:
        BudgetError: if the first points of the curves cost more than the budget.
    """
    lowest = [int(curve.costs[0]) for curve in curves.values()]
    limit = allowed(candidates, budget, sum(lowest))
    given = shares([curve.dense for curve in curves.values()], lowest, limit)
    floor = FLOOR if budget.floor is None else budget.floor
    open_ = {s: curves[s].above(floor * share) for s, share in zip(curves, given, strict=True)}
    chosen = [open_[site].choices[k] for site, k in solve(open_, limit).items()]
    return dict.fromkeys(c.name for c in candidates) | dict(chosen)


def least_total(curves: Curves, limit: int) -> dict[str, int]:
    """The least sum of the losses, up to the last item.

    With a price λ on cost each site takes the point of least loss + λ · cost, a vertex of its lower convex
    hull; as λ falls, the edges of all hulls are walked in the order of their efficiency, loss per cost. This
    is optimal for every budget that the walk meets exactly. The first edge that does not fit ends it, and
    what is left goes to the most efficient steps that fit, between any points: a jump to dense may be large.

    Source: Sinha & Zoltners, Operations Research 27(3), 1979 (the multiple-choice knapsack).

    >>> a = Curve.of([(10, 9.0, "a", {"R": 1}), (20, 1.0, "a", {"R": 2})], "a", dense=100)
    >>> b = Curve.of([(10, 3.0, "b", {"R": 1}), (20, 2.0, "b", {"R": 2})], "b", dense=100)
    >>> least_total({"a": a, "b": b}, 30)
    {'a': 1, 'b': 0}
    """
    at = dict.fromkeys(curves, 0)
    spare = limit - sum(int(curve.costs[0]) for curve in curves.values())
    for site, start, end in _edges(curves):
        cost = int(curves[site].costs[end] - curves[site].costs[start])
        if cost > spare:
            break
        at[site], spare = end, spare - cost
    return _spent(curves, at, spare)


def _edges(curves: Curves) -> list[tuple[str, int, int]]:
    """Edges of all hulls, the most efficient first; those of one site stay in their order."""
    edges: list[tuple[float, str, int, int]] = []
    for site, curve in curves.items():
        hull = curve.hull()
        gains = -np.diff(curve.losses[hull]) / np.diff(curve.costs[hull])
        falling = np.minimum.accumulate(gains)
        edges += zip(falling.tolist(), [site] * len(gains), hull[:-1], hull[1:], strict=True)
    return [edge[1:] for edge in sorted(edges, key=lambda edge: -edge[0])]


def _spent(curves: Curves, at: dict[str, int], spare: int) -> dict[str, int]:
    """The points from which no step fits any more, always by the most efficient one that does.

    A best step stays the best of its site as long as it fits, as what is spare only shrinks.
    """
    steps = {s: step for s, curve in curves.items() if (step := curve.best_step(at[s], spare))}
    while steps:
        site = max(steps, key=lambda s: steps[s].gain)
        step = steps.pop(site)
        if step.cost <= spare:
            at[site], spare = step.end, spare - step.cost
        if following := curves[site].best_step(at[site], spare):
            steps[site] = following
    return at


def least_worst(curves: Curves, limit: int) -> dict[str, int]:
    """The least threshold at which every site may take its cheapest point that loses no more.

    >>> a = Curve.of([(10, 9.0, "a", {"R": 1}), (20, 1.0, "a", {"R": 2})], "a", dense=100)
    >>> b = Curve.of([(10, 3.0, "b", {"R": 1}), (20, 2.0, "b", {"R": 2})], "b", dense=100)
    >>> least_worst({"a": a, "b": b}, 30)
    {'a': 1, 'b': 0}
    """
    thresholds = np.unique(np.concatenate([curve.losses for curve in curves.values()] or [np.zeros(0)]))

    def at(threshold: float) -> dict[str, int]:
        return {s: min(_first(c, threshold), len(c.costs) - 1) for s, c in curves.items()}

    def cost(points: Mapping[str, int]) -> int:
        return sum(int(curves[s].costs[k]) for s, k in points.items())

    low, high = 0, len(thresholds) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(at(thresholds[middle])) <= limit else (middle + 1, high)
    return at(thresholds[low]) if curves else {}


def _first(curve: Curve, threshold: float) -> int:
    """The first point that loses at most the threshold: losses fall along the curve."""
    return int(np.searchsorted(-curve.losses, -threshold))
