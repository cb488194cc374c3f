"""From wishes for every site to ranks that just meet the budget."""

from collections.abc import Mapping

import numpy as np

from tenfold.ranks.knapsack import Curves

Wishes = Mapping[str, float]
"""Site -> the cost that it should have; only their proportions matter."""
LEAST = 1e-9
"""The wish of what costs nothing, such as looking up rows where operations are counted."""


def dealt(curves: Curves, limit: int, wishes: Wishes) -> dict[str, int]:
    """The points of the curves whose costs are in the proportion of the wishes, as far as points allow.

    Every site takes its largest point of at most t · wish, with the largest t within the limit. What is left
    goes up point by point, always at the site that is then least above its wish.

    >>> from tenfold.ranks.curve import Curve
    >>> points = [(k, 9.0 - k, "", {"R": k}) for k in range(1, 9)]
    >>> curves = {name: Curve.of(points, name, dense=10) for name in "ab"}
    >>> found = dealt(curves, 9, {"a": 2.0, "b": 1.0})
    >>> [int(curves[s].costs[k]) for s, k in found.items()]
    [6, 3]
    """
    wishes = {site: max(wish, LEAST) for site, wish in wishes.items()}

    def at(t: float) -> dict[str, int]:
        return {s: _last(curves, s, t * wishes[s]) for s in curves}

    def cost(points: Mapping[str, int]) -> int:
        return sum(int(curves[s].costs[k]) for s, k in points.items())

    low, high = 0.0, max((float(c.costs[-1]) / wishes[s] for s, c in curves.items()), default=0.0)
    if cost(at(high)) <= limit:
        return at(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(at(middle)) <= limit else (low, middle)
    return _filled(curves, at(low), limit - cost(at(low)), wishes)


def _last(curves: Curves, site: str, amount: float) -> int:
    return max(0, int(np.searchsorted(curves[site].costs, amount, side="right")) - 1)


def _filled(curves: Curves, points: dict[str, int], spare: int, wishes: Wishes) -> dict[str, int]:
    def step(site: str) -> int:
        costs, k = curves[site].costs, points[site]
        return int(costs[k + 1] - costs[k])

    def excess(site: str) -> float:
        return float(curves[site].costs[points[site] + 1]) / wishes[site]

    while fitting := [s for s, k in points.items() if k + 1 < len(curves[s].costs) and step(s) <= spare]:
        site = min(fitting, key=excess)
        spare -= step(site)
        points[site] += 1
    return points
