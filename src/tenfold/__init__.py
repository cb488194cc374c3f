"""Make neural networks smaller and faster by decomposing their weights."""

from tenfold.checkpoint import load, save
from tenfold.compress import (
    Distillation,
    InputCovariance,
    KroneckerFisher,
    Plan,
    apply_,
    collect,
    compress,
    find_sites,
    plan,
    presets,
    reconstruct_,
    reestimate_batchnorm_,
    tune,
)
from tenfold.core.errors import TenfoldError
from tenfold.export import fold, to_native
from tenfold.measure import compare, measure
from tenfold.nn import FactorizedConv, FactorizedLinear, FactorizedTensor
from tenfold.ranks import ALDS, EVBMF, Budget, Energy, Fixed, Lagrangian, Uniform

__all__ = [
    "ALDS",
    "EVBMF",
    "Budget",
    "Distillation",
    "Energy",
    "FactorizedConv",
    "FactorizedLinear",
    "FactorizedTensor",
    "Fixed",
    "InputCovariance",
    "KroneckerFisher",
    "Lagrangian",
    "Plan",
    "TenfoldError",
    "Uniform",
    "apply_",
    "collect",
    "compare",
    "compress",
    "find_sites",
    "fold",
    "load",
    "measure",
    "plan",
    "presets",
    "reconstruct_",
    "reestimate_batchnorm_",
    "save",
    "to_native",
    "tune",
]
