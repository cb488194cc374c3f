"""Decompositions: a tensor in, a fit out."""

from tenfold.core.incomplete import Incomplete
from tenfold.core.sparse import Sparse
from tenfold.decompose.base import Fit, Method, methods
from tenfold.decompose.cp.als import CPALS
from tenfold.decompose.cp.epc import CPEPC
from tenfold.decompose.cp.gn import CPGN
from tenfold.decompose.cp.leverage import CPLeverage
from tenfold.decompose.cp.match import Match, congruences, matched
from tenfold.decompose.cp.nesterov import CPNesterov
from tenfold.decompose.cp.pipeline import CPD
from tenfold.decompose.cp.sensitivity import sensitivity
from tenfold.decompose.entries.completion import Completion, CPIncomplete, TuckerIncomplete
from tenfold.decompose.entries.sparse_residual import sparse_inner
from tenfold.decompose.matrices.kronecker_svd import KroneckerSVD, nearest_kronecker
from tenfold.decompose.matrices.sliced_svd import SlicedSVD
from tenfold.decompose.matrices.svd import RandomizedSVD, TruncatedSVD
from tenfold.decompose.networks.als import NetworkALS
from tenfold.decompose.networks.block_term import BlockTermALS, BlockTermGN
from tenfold.decompose.networks.gn import NetworkGN
from tenfold.decompose.networks.gradient import NetworkGradient
from tenfold.decompose.trains.black_box import entries_of
from tenfold.decompose.trains.ht_svd import HTSVD
from tenfold.decompose.trains.randomized_tt import RandomizedTTSVD
from tenfold.decompose.trains.tr_als import TRALS
from tenfold.decompose.trains.tr_svd import TRSVD
from tenfold.decompose.trains.tt_cross import CrossFit, TTCross
from tenfold.decompose.trains.tt_svd import TTSVD
from tenfold.decompose.tucker.hooi import HOOI
from tenfold.decompose.tucker.hosvd import HOSVD, STHOSVD
from tenfold.decompose.tucker.randomized_hosvd import RandomizedHOSVD
from tenfold.decompose.weighted import Root, decompose_weighted, root_of

__all__ = [
    "CPALS",
    "CPD",
    "CPEPC",
    "CPGN",
    "HOOI",
    "HOSVD",
    "HTSVD",
    "STHOSVD",
    "TRALS",
    "TRSVD",
    "TTSVD",
    "BlockTermALS",
    "BlockTermGN",
    "CPIncomplete",
    "CPLeverage",
    "CPNesterov",
    "Completion",
    "CrossFit",
    "Fit",
    "Incomplete",
    "KroneckerSVD",
    "Match",
    "Method",
    "NetworkALS",
    "NetworkGN",
    "NetworkGradient",
    "RandomizedHOSVD",
    "RandomizedSVD",
    "RandomizedTTSVD",
    "Root",
    "SlicedSVD",
    "Sparse",
    "TTCross",
    "TruncatedSVD",
    "TuckerIncomplete",
    "congruences",
    "decompose_weighted",
    "entries_of",
    "matched",
    "methods",
    "nearest_kronecker",
    "root_of",
    "sensitivity",
    "sparse_inner",
]
