"""Tensor formats: low rank, whole and in slices, CP, Tucker, tensor train, and general networks."""

from tenfold.formats.base import Format, General
from tenfold.formats.cp import CP
from tenfold.formats.graphs import Ranks
from tenfold.formats.lowrank import LowRank
from tenfold.formats.registry import formats
from tenfold.formats.sliced_lowrank import SlicedLowRank
from tenfold.formats.tt import TensorTrain
from tenfold.formats.tucker import Tucker

__all__ = ["CP", "Format", "General", "LowRank", "Ranks", "SlicedLowRank", "TensorTrain", "Tucker", "formats"]
