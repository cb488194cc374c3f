"""Rank rules: candidates and a budget in, ranks out."""

from tenfold.ranks.base import Allotment, Budget, Candidate, RankRule, rules
from tenfold.ranks.energy import Energy
from tenfold.ranks.fixed import Fixed
from tenfold.ranks.uniform import Uniform

__all__ = ["Allotment", "Budget", "Candidate", "Energy", "Fixed", "RankRule", "Uniform", "rules"]
