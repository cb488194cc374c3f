"""Decompositions: a tensor in, a fit out."""

from tenfold.decompose.base import Fit, Method, methods
from tenfold.decompose.cp_als import CPALS
from tenfold.decompose.cp_epc import CPEPC
from tenfold.decompose.hooi import HOOI
from tenfold.decompose.hosvd import HOSVD, STHOSVD
from tenfold.decompose.sensitivity import sensitivity
from tenfold.decompose.sliced_svd import SlicedSVD
from tenfold.decompose.svd import RandomizedSVD, TruncatedSVD
from tenfold.decompose.tt_svd import TTSVD
from tenfold.decompose.weighted import Root, decompose_weighted, root_of

__all__ = [
    "CPALS",
    "CPEPC",
    "HOOI",
    "HOSVD",
    "STHOSVD",
    "TTSVD",
    "Fit",
    "Method",
    "RandomizedSVD",
    "Root",
    "SlicedSVD",
    "TruncatedSVD",
    "decompose_weighted",
    "methods",
    "root_of",
    "sensitivity",
]
