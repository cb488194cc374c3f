"""Predicted losses brought in line with fits at a few ranks."""

from collections.abc import Sequence

import numpy as np

from tenfold.core.errors import OptionError
from tenfold.ranks.candidate import Candidate
from tenfold.ranks.curve import Point

NOTHING = 1e-10
"""Of the largest loss. What is less is rounding, and has no ratio."""


def measured(candidate: Candidate, points: Sequence[Point], anchors: int) -> list[Point]:
    """The points with losses times the ratio of measured to predicted loss.

    The ratio is measured at `anchors` points, spread evenly over the logarithm of the cost, and in between it
    is a straight line in the logarithms of both. A candidate without `fit` is left as it is: its prediction
    is exact, or there is nothing better.

    >>> from tenfold.formats import LowRank
    >>> fc = Candidate("fc", LowRank, (4, 4), (), lambda: None, fit=lambda ranks: 4.0 / ranks["R"])
    >>> measured(fc, [(8, 8.0, "fc", {"R": 1}), (16, 2.0, "fc", {"R": 2})], anchors=2)
    [(8, 4.0, 'fc', {'R': 1}), (16, 2.0, 'fc', {'R': 2})]
    """
    if anchors < 0:
        raise OptionError(f"anchors came as {anchors}.", "Give 0 (predictions as they are) or more.")
    if candidate.fit is None or not points or not anchors:
        return list(points)
    costs = np.log([p[0] for p in points])
    at = chosen(costs, anchors)
    predicted = np.array([points[k][1] for k in at])
    losses = np.array([candidate.scale * candidate.fit(points[k][3] or {}) for k in at])
    least = max(NOTHING * max(*predicted, *losses, *(p[1] for p in points)), np.finfo(float).tiny)
    ratios = np.interp(costs, costs[at], np.log(np.maximum(losses, least) / np.maximum(predicted, least)))
    return [
        (cost, loss * float(np.exp(ratio)), name, ranks)
        for (cost, loss, name, ranks), ratio in zip(points, ratios, strict=True)
    ]


def chosen(costs: np.ndarray, count: int) -> list[int]:
    """Numbers of at most `count` points, spread evenly over what the costs span; in order, each once.

    >>> chosen(np.array([0.0, 0.1, 0.2, 1.0]), 3)
    [0, 2, 3]
    """
    wanted = np.linspace(costs[0], costs[-1], count) if count > 1 else np.array([costs.mean()])
    return sorted({int(np.abs(costs - w).argmin()) for w in wanted})
