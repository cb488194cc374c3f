"""Factorized layers."""

from tenfold.nn.base import REPLACEMENTS, FactorizedLayer, Role, replacement, replaces
from tenfold.nn.conv import FactorizedConv
from tenfold.nn.gates import GatedTensor
from tenfold.nn.linear import FactorizedLinear
from tenfold.nn.tensor import DenseFallbackWarning, FactorizedTensor

__all__ = [
    "REPLACEMENTS",
    "DenseFallbackWarning",
    "FactorizedConv",
    "FactorizedLayer",
    "FactorizedLinear",
    "FactorizedTensor",
    "GatedTensor",
    "Role",
    "replacement",
    "replaces",
]
