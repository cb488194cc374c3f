"""Ranks of the least predicted loss."""

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.ranks.base import RankRule, by_site, required, rules
from tenfold.ranks.budget import Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.curve import Curve, Point
from tenfold.ranks.knapsack import allotted, least_total
from tenfold.ranks.measured import measured
from tenfold.ranks.predicted import predicted


@rules.register("lagrangian")
@dataclass(frozen=True)
class Lagrangian(RankRule):
    """The least sum over all sites of the predicted rise of the loss, within the budget.

    min Σ_l loss_l(ranks_l)  subject to  Σ_l cost_l(ranks_l) ≤ budget, by a price λ on cost: every step of
    every site is taken in the order of the loss that it saves per cost. A site that gains nothing by its
    factors jumps to dense, which loses nothing. Of several candidates for a site, the best at its cost is
    taken. `predicted` says what is known of the loss: the exact one for low rank, upper bounds for Tucker,
    tensor trains and CP.

    Every site keeps 0.8 of its uniform share unless the budget has another floor: without one, the rule
    gives up whole sites, which the prediction, made for small errors and one site at a time, does not
    cover. Where a candidate can be fitted (`Candidate.fit`), the prediction is brought in line with fits at
    `anchors` ranks (0: none), so that formats whose bounds are not equally tight compare fairly. With
    `relative`, each site's loss counts as a fraction of its weight's energy: for weights of different size
    when there are no data to set `Candidate.scale`.

    Source: Idelbayev & Carreira-Perpinan, CVPR 2020 (the C step); the convex hull: Sinha & Zoltners 1979.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> flat, steep = np.eye(20), np.diag(0.5 ** np.arange(20.0))
    >>> weights = {"flat": flat, "steep": steep}
    >>> sites = [Candidate(n, LowRank, (20, 20), (), lambda x=x: x) for n, x in weights.items()]
    >>> Lagrangian()(sites, Budget(params=0.5))
    {'flat': {'R': 6}, 'steep': {'R': 4}}
    """

    relative: bool = False
    anchors: int = 4

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks within the budget."""
        terms = required(budget, "lagrangian")
        curves = {site: self._curve(group, terms) for site, group in by_site(candidates).items()}
        return allotted(candidates, curves, terms, least_total)

    def _curve(self, group: Sequence[Candidate], terms: Budget) -> Curve:
        points = [point for c in group for point in self._points(c, terms)]
        return Curve.of(points, group[0].name, group[0].cost(None, terms.unit))

    def _points(self, candidate: Candidate, terms: Budget) -> list[Point]:
        if self.relative:
            return predicted(candidate, terms, relative=True)
        return measured(candidate, predicted(candidate, terms), self.anchors)
