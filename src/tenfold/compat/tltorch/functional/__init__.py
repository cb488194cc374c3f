"""Convolutions and linear maps with factorized weights, as functions."""

from tenfold.compat.tltorch.functional.convolution import convolve, tucker_conv
from tenfold.compat.tltorch.functional.linear import factorized_linear

__all__ = ["convolve", "factorized_linear", "tucker_conv"]
