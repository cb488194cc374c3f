"""Decompositions: a tensor in, a fit out."""

from tenfold.core.sparse import Incomplete, Sparse
from tenfold.decompose.base import Fit, Method, methods
from tenfold.decompose.black_box import entries_of
from tenfold.decompose.block_term import BlockTermALS, BlockTermGN
from tenfold.decompose.completion import Completion, CPIncomplete, TuckerIncomplete
from tenfold.decompose.cp_als import CPALS
from tenfold.decompose.cp_epc import CPEPC
from tenfold.decompose.cp_gn import CPGN
from tenfold.decompose.cp_leverage import CPLeverage
from tenfold.decompose.cp_match import Match, congruences, matched
from tenfold.decompose.cp_nesterov import CPNesterov
from tenfold.decompose.cp_pipeline import CPD
from tenfold.decompose.hooi import HOOI
from tenfold.decompose.hosvd import HOSVD, STHOSVD
from tenfold.decompose.ht_svd import HTSVD
from tenfold.decompose.kronecker_svd import KroneckerSVD, nearest_kronecker
from tenfold.decompose.network_als import NetworkALS
from tenfold.decompose.network_gn import NetworkGN
from tenfold.decompose.network_gradient import NetworkGradient
from tenfold.decompose.randomized_hosvd import RandomizedHOSVD
from tenfold.decompose.randomized_tt import RandomizedTTSVD
from tenfold.decompose.sensitivity import sensitivity
from tenfold.decompose.sliced_svd import SlicedSVD
from tenfold.decompose.sparse_residual import sparse_inner
from tenfold.decompose.svd import RandomizedSVD, TruncatedSVD
from tenfold.decompose.tr_als import TRALS
from tenfold.decompose.tr_svd import TRSVD
from tenfold.decompose.tt_cross import CrossFit, TTCross
from tenfold.decompose.tt_svd import TTSVD
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
