"""Ranks from losses that were measured, one site at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tenfold.core.errors import OptionError, SelectionError
from tenfold.ranks.base import RankRule, by_site, required, rules
from tenfold.ranks.budget import EVERYTHING, Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.curve import Curve, Point
from tenfold.ranks.fixed import checked
from tenfold.ranks.knapsack import Solver, allotted, least_total, least_worst

Table = Mapping[str, Sequence[Sequence[Any]]]
"""Candidate -> pairs of ranks, as people write them, and the rise of the loss; JSON-able."""

SOLVERS: dict[str, Solver] = {"worst": least_worst, "total": least_total}
KEEPS = tuple(k / 10 for k in range(1, 10))


@rules.register("sensitivity")
@dataclass(frozen=True)
class Sensitivity(RankRule):
    """The ranks of a table of measured losses: candidate -> pairs of ranks and the rise of the loss.

    The loss, or the drop of the accuracy, is that of the model with this one site compressed, less that of
    the dense model: a site that stays dense has 0. `measured_losses` makes the table. `least` is "worst",
    AIMET's greedy choice: every site takes its cheapest ranks that lose no more than one threshold, which is
    as low as the budget allows; or "total": the sum of the losses is least, by convex hulls. Both read the
    table from cheap to costly and pass over ranks that lose more than cheaper ones. Every site keeps 0.8 of
    its uniform share, as far as its table reaches, unless the budget has another floor.

    Source: AIMET, greedy compression-ratio selection (Qualcomm 2020).

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> sites = [Candidate(n, LowRank, (20, 20), (), lambda: np.eye(20)) for n in ("head", "body")]
    >>> table = {"head": [(2, 0.5), (5, 0.1)], "body": [(2, 0.05), (5, 0.01)]}
    >>> Sensitivity(table)(sites, Budget(params=0.5))
    {'head': {'R': 5}, 'body': {'R': 2}}
    """

    losses: Table
    least: Literal["worst", "total"] = "worst"

    def __post_init__(self) -> None:
        if self.least not in SOLVERS:
            raise OptionError(f"least came as {self.least!r}.", f"Give one of {', '.join(SOLVERS)}.")

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks within the budget; raises SelectionError where the table and the candidates do not agree."""
        terms = required(budget, "sensitivity")
        self._check({c.name for c in candidates})
        curves = {site: self._curve(group, terms) for site, group in by_site(candidates).items()}
        return allotted(candidates, curves, terms, SOLVERS[self.least])

    def _curve(self, group: Sequence[Candidate], terms: Budget) -> Curve:
        points = [point for c in group for point in self._points(c, terms)]
        return Curve.of(points, group[0].name, group[0].cost(None, terms.unit))

    def _points(self, candidate: Candidate, terms: Budget) -> list[Point]:
        points: list[Point] = []
        for written, loss in self.losses[candidate.name]:
            named = checked(candidate.name, candidate.format.normalised(candidate.shape, written))
            ranks = candidate.paying({b: r for b, r in named.items() if b in candidate.full.bonds}, terms)
            if ranks is not None:
                points.append((candidate.cost(ranks, terms.unit), float(loss), candidate.name, ranks))
        return points

    def _check(self, names: set[str]) -> None:
        if missing := sorted(names - set(self.losses)):
            raise SelectionError(f"no losses are given for {missing}.", "Measure them: `measured_losses`.")
        if unknown := sorted(set(self.losses) - names):
            raise SelectionError(f"losses are given for {unknown}, which are no sites.", "Leave them out.")


def measured_losses(
    candidates: Sequence[Candidate],
    evaluate: Callable[[str, Mapping[str, int]], float],
    *,
    keeps: Sequence[float] = KEEPS,
    terms: Budget = EVERYTHING,
) -> dict[str, list[list[Any]]]:
    """The table for `Sensitivity`, as JSON takes it: each candidate at each fraction of its dense cost.

    `evaluate(name, ranks)` compresses this one site and returns how much the loss rises. It is called once
    for every candidate and fraction that has ranks of its own. `terms` says in which unit the fractions are,
    and cuts the ranks by its cap and multiple.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> fc = Candidate("fc", LowRank, (20, 20), (), lambda: np.eye(20))
    >>> measured_losses([fc], lambda name, ranks: 1 / ranks["R"], keeps=(0.2, 0.5, 1.0))
    {'fc': [[{'R': 2}, 0.5], [{'R': 5}, 0.2]]}
    """
    table: dict[str, list[list[Any]]] = {}
    for c in candidates:
        dense = c.cost(None, terms.unit)
        found = [c.within(int(keep * dense), terms) for keep in sorted(keeps)]
        distinct = [r for k, r in enumerate(found) if r is not None and r not in found[:k]]
        table[c.name] = [[dict(r), float(evaluate(c.name, r))] for r in distinct]
    return table
