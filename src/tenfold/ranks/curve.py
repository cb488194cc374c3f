"""What each size of a site costs, and the loss that it brings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tenfold.ranks.candidate import Allotment

Point = tuple[int, float, str, Allotment]
"""Cost, loss, the name of a candidate, and its ranks."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The sizes of a site that are worth having: each costs more than the one before, and loses less.

    `choices` names the candidate of each and its ranks. `dense` is the cost of the dense weight, which is the
    last point unless a smaller one loses as little.
    """

    costs: Int[np.ndarray, " n"]
    losses: Float[np.ndarray, " n"]
    choices: Sequence[tuple[str, Allotment]]
    dense: int

    @staticmethod
    def of(points: Sequence[Point], name: str, dense: int) -> "Curve":
        """The curve through the points, of any candidates of a site, that no other dominates.

        The dense weight, which costs `dense` and loses nothing, is one more. Points whose loss is no
        finite number are left out.

        >>> Curve.of([(10, 4.0, "fc", {"R": 1}), (20, 5.0, "fc", {"R": 2})], "fc", dense=40).costs
        array([10, 40])
        """
        finite = [p for p in points if np.isfinite(p[1])]
        ordered = sorted([*finite, (dense, 0.0, name, None)], key=lambda p: (p[0], p[1]))
        losses = np.array([p[1] for p in ordered])
        best = np.minimum.accumulate(np.append(np.inf, losses))[:-1]
        kept = [p for p, better in zip(ordered, losses < best, strict=True) if better and p[0] <= dense]
        costs = np.array([p[0] for p in kept], dtype=np.int64)
        return Curve(costs, np.array([p[1] for p in kept]), [p[2:] for p in kept], dense)

    def above(self, floor: float) -> "Curve":
        """The part from the largest point that costs at most `floor`, or from the first one.

        >>> curve = Curve.of([(10, 4.0, "fc", {"R": 1}), (20, 2.0, "fc", {"R": 2})], "fc", dense=40)
        >>> curve.above(25.0).costs
        array([20, 40])
        """
        start = max(0, int(np.searchsorted(self.costs, floor, side="right")) - 1)
        return Curve(self.costs[start:], self.losses[start:], self.choices[start:], self.dense)

    def hull(self) -> list[int]:
        """The points of the lower convex hull, from left to right (Andrew 1979).

        >>> points = [(10, 4.0, "fc", {"R": 1}), (20, 3.0, "fc", {"R": 2})]
        >>> Curve.of(points, "fc", dense=30).hull()
        [0, 2]
        """
        kept: list[int] = []
        for k in range(len(self.costs)):
            while len(kept) > 1 and self._efficiency(kept[-2], kept[-1]) <= self._efficiency(kept[-1], k):
                kept.pop()
            kept.append(k)
        return kept

    def _efficiency(self, k: int, n: int) -> float:
        return float((self.losses[k] - self.losses[n]) / (self.costs[n] - self.costs[k]))

    def best_step(self, k: int, spare: int) -> "Step | None":
        """The most efficient step from point k that costs at most `spare`."""
        end = int(np.searchsorted(self.costs, self.costs[k] + spare, side="right"))
        if end <= k + 1:
            return None
        costs = self.costs[k + 1 : end] - self.costs[k]
        gains = (self.losses[k] - self.losses[k + 1 : end]) / costs
        n = int(np.argmax(gains))
        return Step(float(gains[n]), k + 1 + n, int(costs[n]))


class Step(NamedTuple):
    """The loss that it saves per cost, the point that it leads to, and its cost."""

    gain: float
    end: int
    cost: int
