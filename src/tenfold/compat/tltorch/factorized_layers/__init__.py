"""Factorized layers."""

from tenfold.compat.tltorch.factorized_layers.factorized_convolution import FactorizedConv
from tenfold.compat.tltorch.factorized_layers.factorized_embedding import FactorizedEmbedding
from tenfold.compat.tltorch.factorized_layers.factorized_linear import FactorizedLinear
from tenfold.compat.tltorch.factorized_layers.tensor_contraction_layers import TCL
from tenfold.compat.tltorch.factorized_layers.tensor_regression_layers import TRL

__all__ = ["TCL", "TRL", "FactorizedConv", "FactorizedEmbedding", "FactorizedLinear"]
