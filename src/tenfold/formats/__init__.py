"""Tensor formats: low rank, whole and in slices, CP, Tucker, train, ring, block term, hierarchical, Kronecker
sums, and general networks."""

from tenfold.formats.base import Format, General
from tenfold.formats.block_term import BlockTerm
from tenfold.formats.cp import CP
from tenfold.formats.graphs import Ranks
from tenfold.formats.ht import HierarchicalTucker
from tenfold.formats.kronecker import KroneckerSum
from tenfold.formats.lattices import mera, peps
from tenfold.formats.lowrank import LowRank
from tenfold.formats.orthogonalise import orthogonalised
from tenfold.formats.randomized_rounding import rounded_randomly
from tenfold.formats.registry import formats
from tenfold.formats.ring import TensorRing
from tenfold.formats.rounding import Rounded, rounded
from tenfold.formats.sliced_lowrank import SlicedLowRank
from tenfold.formats.tt import TensorTrain
from tenfold.formats.tucker import Tucker

__all__ = [
    "CP",
    "BlockTerm",
    "Format",
    "General",
    "HierarchicalTucker",
    "KroneckerSum",
    "LowRank",
    "Ranks",
    "Rounded",
    "SlicedLowRank",
    "TensorRing",
    "TensorTrain",
    "Tucker",
    "formats",
    "mera",
    "orthogonalised",
    "peps",
    "rounded",
    "rounded_randomly",
]
