"""Factorized layers."""

from tenfold.nn.base import REPLACEMENTS, FactorizedLayer, Role, replacement, replaces
from tenfold.nn.conv import FactorizedConv
from tenfold.nn.embedding import FactorizedEmbedding
from tenfold.nn.embedding_bag import FactorizedEmbeddingBag
from tenfold.nn.gates import GatedTensor
from tenfold.nn.linear import FactorizedLinear
from tenfold.nn.table import FactorizedTable, RowError
from tenfold.nn.tensor import DenseFallbackWarning, FactorizedTensor

__all__ = [
    "REPLACEMENTS",
    "DenseFallbackWarning",
    "FactorizedConv",
    "FactorizedEmbedding",
    "FactorizedEmbeddingBag",
    "FactorizedLayer",
    "FactorizedLinear",
    "FactorizedTable",
    "FactorizedTensor",
    "GatedTensor",
    "Role",
    "RowError",
    "replacement",
    "replaces",
]
