"""Ranks found by trying them out."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from functools import partial
from typing import Any

from tenfold.core.errors import BudgetError, OptionError
from tenfold.ranks.base import RankRule, by_site, required, rules, winners
from tenfold.ranks.budget import Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.curve import Curve
from tenfold.ranks.knapsack import Curves, allotted, least_total
from tenfold.ranks.lagrangian import Lagrangian
from tenfold.ranks.measured import measured
from tenfold.ranks.predicted import predicted
from tenfold.ranks.proposals import SAMPLERS, Proposals, Sampler
from tenfold.ranks.shares import dealt
from tenfold.ranks.trials import Trials
from tenfold.ranks.uniform import Uniform

Evaluate = Callable[[Mapping[str, Allotment]], float]
"""Candidate -> ranks in, what is to be small out: the rise of the loss, or minus the accuracy."""


@rules.register("search")
@dataclass(frozen=True)
class Search(RankRule):
    """The ranks of least measured loss among so many `trials`, by a black-box search with Optuna.

    `evaluate` compresses a copy to the ranks that it is given and measures it: for those who can pay. What is
    searched for are the shares of the sites in the budget, each within 2^±`spread` of that in the better one
    of the two allotments that are tried first, uniform and `Lagrangian`. So the result is never worse than
    either on what `evaluate` measures. All trials are within the budget and near it; at its share each site
    takes the ranks, and of several candidates the one, of least predicted loss. Floors are `Lagrangian`'s.

    The same `seed` gives the same trials. With a `record`, a JSON file, a run that was killed goes on after
    its last trial as if nothing had been, and a finished one can be given more trials. Ranks that were
    measured before are not measured again. A loss that is infinite or NaN is that of a failed trial.

    Needs the extra `tenfold[search]`. An `evaluate` for a model would be

        def evaluate(ranks):
            small = compress(net, None, example=x, rule=Fixed(ranks)).model
            return -accuracy(small, batches)

    Source of the sampler "tpe": Bergstra et al., NeurIPS 2011; Watanabe 2023, arXiv:2304.11127.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> sites = [Candidate(n, LowRank, (20, 20), (), lambda: np.eye(20)) for n in ("head", "body")]
    >>> def evaluate(ranks): return -ranks["head"]["R"] if ranks["head"] else -20
    >>> found = Search(evaluate, trials=10)(sites, Budget(params=0.5))
    >>> found["head"]["R"] > found["body"]["R"]
    True
    """

    evaluate: InitVar[Evaluate | None] = None
    trials: int = 50
    seed: int = 0
    sampler: Sampler = "tpe"
    spread: float = 1.0
    record: str | os.PathLike[str] | None = None

    def __post_init__(self, evaluate: Evaluate | None) -> None:
        ranges = {
            f"evaluate, a function of ranks, got {evaluate!r}": callable(evaluate),
            f"trials >= 2, got {self.trials!r}": isinstance(self.trials, int) and self.trials >= 2,
            f"a seed >= 0, got {self.seed!r}": isinstance(self.seed, int) and self.seed >= 0,
            f"a sampler of {', '.join(SAMPLERS)}, got {self.sampler!r}": self.sampler in SAMPLERS,
            f"a finite spread > 0, got {self.spread!r}": isinstance(self.spread, int | float)
            and 0 < self.spread < math.inf,
        }
        for wanted, met in ranges.items():
            if not met:
                raise OptionError(f"The search rule needs {wanted}.", "The docstring of Search says more.")
        object.__setattr__(self, "evaluate", evaluate)
        object.__setattr__(self, "record", None if self.record is None else os.fspath(self.record))

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """The best ranks that were tried, within the budget.

        Raises:
            MissingExtraError: without Optuna.
            DataError: if no trial gives a finite loss.
            CheckpointError: if the record is of another search.
        """
        terms = required(budget, "search")
        space = _Space(candidates, terms)
        proposals = Proposals(space.sites, self.sampler, self.spread, self.seed)
        starts = [*_uniform(candidates, terms), space.of_least_loss()]
        asked = self._asked(candidates, terms, starts)
        trials = Trials(vars(self)["evaluate"], self.record, asked, len(starts), space.sites, self.spread)
        for ranks in starts:
            trials.add({}, ranks)
        centre = space.costs(trials.best().ranks)
        for trial in trials.done:
            proposals.tell(self._shares(space.costs(trial.ranks), centre), _told(trial.loss))
        while space.sites and len(trials.done) < self.trials:
            shares = trials.recorded() or proposals.ask()
            trial = trials.add(shares, space.ranks({s: centre[s] * 2.0 ** shares[s] for s in centre}))
            proposals.tell(shares, _told(trial.loss))
        return dict(trials.best().ranks)

    def _shares(self, costs: Mapping[str, int], centre: Mapping[str, int]) -> dict[str, float]:
        """Where a start lies, or the nearest shares that may be proposed."""
        steps = {s: math.log2(costs[s] / centre[s]) for s in centre}
        return {s: min(max(step, -self.spread), self.spread) for s, step in steps.items()}

    def _asked(self, candidates: Sequence[Candidate], terms: Budget, starts: Sequence[Any]) -> dict[str, Any]:
        """What has to be the same when a record goes on: the ranks of the starts stand for the weights."""
        return {
            "budget": repr(terms),
            "options": [self.seed, self.sampler, self.spread],
            "candidates": {c.name: [c.format.__name__, c.place, c.shape, c.whole] for c in candidates},
            "starts": starts,
        }


class _Space:
    """The ranks of all sites by what each of them costs: those of least loss that `Lagrangian` knows."""

    def __init__(self, candidates: Sequence[Candidate], terms: Budget) -> None:
        self.candidates, self.terms = candidates, terms
        groups = by_site(candidates)
        self.curves: Curves = {site: self._curve(group) for site, group in groups.items()}

    def _curve(self, group: Sequence[Candidate]) -> Curve:
        anchors = Lagrangian().anchors
        points = [point for c in group for point in measured(c, predicted(c, self.terms), anchors)]
        return Curve.of(points, group[0].name, group[0].cost(None, self.terms.unit))

    @property
    def sites(self) -> list[str]:
        """The sites that have a choice."""
        return [site for site, curve in self.curves.items() if len(curve.costs) > 1]

    def of_least_loss(self) -> dict[str, Allotment]:
        """What `Lagrangian` gives."""
        return allotted(self.candidates, self.curves, self.terms, least_total)

    def costs(self, ranks: Mapping[str, Allotment]) -> dict[str, int]:
        """What each site that has a choice costs at these ranks."""
        used = winners(self.candidates, ranks)
        return {s: used[s][0].cost(used[s][1], self.terms.unit) for s in self.sites}

    def ranks(self, wishes: Mapping[str, float]) -> dict[str, Allotment]:
        """The ranks within the budget at which sites cost what they should, in proportion."""
        every = {site: float(curve.dense) for site, curve in self.curves.items()} | dict(wishes)
        return allotted(self.candidates, self.curves, self.terms, partial(dealt, wishes=every))


def _uniform(candidates: Sequence[Candidate], terms: Budget) -> list[dict[str, Allotment]]:
    """The uniform allotment, unless the first candidates of the sites, which it takes, cost too much."""
    try:
        return [Uniform()(candidates, terms)]
    except BudgetError:
        return []


def _told(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
