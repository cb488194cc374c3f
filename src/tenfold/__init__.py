"""Make neural networks smaller and faster by decomposing their weights."""

from tenfold.checkpoint import load, save
from tenfold.compress import Plan, apply_, compress, find_sites, plan, presets, tune
from tenfold.core.errors import TenfoldError
from tenfold.export import fold, to_native
from tenfold.measure import compare, measure
from tenfold.nn import FactorizedConv, FactorizedLinear, FactorizedTensor
from tenfold.ranks import Budget, Energy, Fixed, Uniform

__all__ = [
    "Budget",
    "Energy",
    "FactorizedConv",
    "FactorizedLinear",
    "FactorizedTensor",
    "Fixed",
    "Plan",
    "TenfoldError",
    "Uniform",
    "apply_",
    "compare",
    "compress",
    "find_sites",
    "fold",
    "load",
    "measure",
    "plan",
    "presets",
    "save",
    "to_native",
    "tune",
]
