"""Rank rules: candidates and a budget in, ranks out."""

from tenfold.ranks.alds import ALDS
from tenfold.ranks.base import RankRule, rules, winners
from tenfold.ranks.budget import Budget
from tenfold.ranks.candidate import Allotment, Candidate
from tenfold.ranks.energy import Energy
from tenfold.ranks.evbmf import EVBMF, evbmf_rank
from tenfold.ranks.fixed import Fixed
from tenfold.ranks.lagrangian import Lagrangian
from tenfold.ranks.lasso import Lasso
from tenfold.ranks.search import Search
from tenfold.ranks.sensitivity import Sensitivity, measured_losses
from tenfold.ranks.together import allot
from tenfold.ranks.uniform import Uniform

__all__ = [
    "ALDS",
    "EVBMF",
    "Allotment",
    "Budget",
    "Candidate",
    "Energy",
    "Fixed",
    "Lagrangian",
    "Lasso",
    "RankRule",
    "Search",
    "Sensitivity",
    "Uniform",
    "allot",
    "evbmf_rank",
    "measured_losses",
    "rules",
    "winners",
]
