"""Ways out of tenfold: inference without merges, torch's own modules."""

from tenfold.export.fold import FoldedLayer, fold
from tenfold.export.native import to_native

__all__ = ["FoldedLayer", "fold", "to_native"]
