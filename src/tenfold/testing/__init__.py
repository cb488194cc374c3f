"""The laws of tenfold, for the formats, methods and layers of others too."""

from tenfold.testing.formats import check_format
from tenfold.testing.layers import check_layer
from tenfold.testing.methods import check_method

__all__ = ["check_format", "check_layer", "check_method"]
