"""Convolutions and linear maps with factorized weights, as functions.

As in TensorLy-Torch, `factorized_linear` is the function here, and also the name of a module: importing names
from that module first keeps the function in its place.
"""

from tenfold.compat.tltorch.functional.convolution import convolve, tucker_conv
from tenfold.compat.tltorch.functional.factorized_linear import linear_blocktt, linear_cp, linear_tucker
from tenfold.compat.tltorch.functional.linear import factorized_linear

__all__ = [
    "convolve",
    "factorized_linear",
    "linear_blocktt",
    "linear_cp",
    "linear_tucker",
    "tucker_conv",
]
