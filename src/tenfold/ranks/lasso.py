"""Ranks that trained gates leave open."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenfold.core.errors import OptionError, SelectionError
from tenfold.core.network import Axis
from tenfold.ranks.base import FLOOR, RankRule, rules
from tenfold.ranks.budget import EVERYTHING, Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.threshold import met

Widths = Mapping[str, Mapping[Axis, Sequence[float]]]
"""Candidate -> bond -> what passes through each rank, in any order; JSON-able."""


@rules.register("lasso")
@dataclass(frozen=True)
class Lasso(RankRule):
    """The ranks whose gates are open wider than a threshold: one for all sites, as low as the budget allows.

    `widths` are those of gates that were trained with a penalty, as `gate_widths(model)` gives them: for each
    rank of each bond the norm of what passes through it as a fraction of the weight's, 0 where a gate is
    shut. Without a budget all ranks count that are not 0. With one, every site keeps 0.8 of its uniform share
    unless the budget has another floor. Of several candidates for a site, the one that costs least is taken.

    Source: the tensor lasso of TensorLy-Torch (Kossaifi et al.); the lasso: Tibshirani 1996.

    >>> from tenfold.formats import LowRank
    >>> sites = [Candidate(n, LowRank, (20, 20), (), lambda: None) for n in ("head", "body")]
    >>> widths = {"head": {"R": [0.9, 0.5, 0.2, 0.1]}, "body": {"R": [0.6, 0.1, 0.0, 0.0]}}
    >>> Lasso(widths)(sites, None)
    {'head': {'R': 4}, 'body': {'R': 2}}
    >>> Lasso(widths)(sites, Budget(params=0.2, floor=0))
    {'head': {'R': 3}, 'body': {'R': 1}}
    """

    widths: Widths

    def __post_init__(self) -> None:
        for name, bonds in self.widths.items():
            for bond, widths in bonds.items():
                if not widths or not all(0 <= width < math.inf for width in widths):
                    raise OptionError(
                        f"the widths of bond {bond} of '{name}' came as {widths!r}.",
                        "Give one finite number from 0 for every rank, as `gate_widths` does.",
                    )

    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks within the budget; raises SelectionError where the widths and the candidates do not agree."""
        self._check(candidates)
        widest = max((max(s) for bonds in self.widths.values() for s in bonds.values()), default=0.0)
        floor = 0.0 if budget is None else FLOOR
        return met(candidates, budget or EVERYTHING, self._ranks, wanted=0.0, spared=widest, floor=floor)

    def _ranks(self, candidate: Candidate, threshold: float) -> dict[Axis, int]:
        widths = self.widths[candidate.name]
        return {b: max(1, sum(width > threshold for width in widths[b])) for b in candidate.full.bonds}

    def _check(self, candidates: Sequence[Candidate]) -> None:
        bonds = {c.name: set(c.full.bonds) for c in candidates}
        if missing := sorted(set(bonds) - set(self.widths)):
            raise SelectionError(f"no gates are given for {missing}.", "Leave these sites out of the plan.")
        if unknown := sorted(set(self.widths) - set(bonds)):
            raise SelectionError(f"gates are given for {unknown}, which are no sites.", "Leave them out.")
        for name, wanted in bonds.items():
            if set(self.widths[name]) != wanted:
                given = ", ".join(self.widths[name])
                raise SelectionError(
                    f"the gates of '{name}' are on {given}, its bonds are {', '.join(sorted(wanted))}.",
                    "Plan the format in which the gates were trained.",
                )
