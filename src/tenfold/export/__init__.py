"""Ways out of tenfold: torch's own modules."""

from tenfold.export.native import to_native

__all__ = ["to_native"]
