"""Factorized layers."""

from tenfold.core.tensorized_shape import get_tensorized_shape
from tenfold.nn import init
from tenfold.nn.attention.multihead import FactorizedMultiheadAttention
from tenfold.nn.attention.transformer import (
    FactorizedTransformerDecoderLayer,
    FactorizedTransformerEncoderLayer,
)
from tenfold.nn.base import REPLACEMENTS, FactorizedLayer, Role, replacement, replaces
from tenfold.nn.bilinear import FactorizedBilinear
from tenfold.nn.bonds.dropout import remove_tensor_dropout, tensor_dropout
from tenfold.nn.bonds.gates import GatedTensor
from tenfold.nn.bonds.lasso import TensorLasso, tensor_lasso
from tenfold.nn.composite import OPENINGS, Composite, composes
from tenfold.nn.convolution.conv import FactorizedConv
from tenfold.nn.convolution.transduction import transduct
from tenfold.nn.convolution.transposed import FactorizedConvTranspose
from tenfold.nn.embedding.embedding import FactorizedEmbedding
from tenfold.nn.embedding.embedding_bag import FactorizedEmbeddingBag
from tenfold.nn.embedding.table import FactorizedTable, RowError
from tenfold.nn.joint import joint, joint_random
from tenfold.nn.linear import FactorizedLinear
from tenfold.nn.recurrent.layers import FactorizedGRU, FactorizedLSTM, FactorizedRNN
from tenfold.nn.regression.tcl import TCL
from tenfold.nn.regression.trl import TRL
from tenfold.nn.tensor.complex_pairs import ComplexPairs, TensorizedPairs, in_pairs_
from tenfold.nn.tensor.factorized import DenseFallbackWarning, FactorizedTensor
from tenfold.nn.tensor.index import TensorIndexError
from tenfold.nn.tensor.pivoted import PivotedTensor
from tenfold.nn.tensor.tensorized import TensorizedTensor
from tenfold.nn.tensor.view import FactorizedView
from tenfold.nn.transposed_linear import linear_of_conv1d

__all__ = [
    "OPENINGS",
    "REPLACEMENTS",
    "TCL",
    "TRL",
    "ComplexPairs",
    "Composite",
    "DenseFallbackWarning",
    "FactorizedBilinear",
    "FactorizedConv",
    "FactorizedConvTranspose",
    "FactorizedEmbedding",
    "FactorizedEmbeddingBag",
    "FactorizedGRU",
    "FactorizedLSTM",
    "FactorizedLayer",
    "FactorizedLinear",
    "FactorizedMultiheadAttention",
    "FactorizedRNN",
    "FactorizedTable",
    "FactorizedTensor",
    "FactorizedTransformerDecoderLayer",
    "FactorizedTransformerEncoderLayer",
    "FactorizedView",
    "GatedTensor",
    "PivotedTensor",
    "Role",
    "RowError",
    "TensorIndexError",
    "TensorLasso",
    "TensorizedPairs",
    "TensorizedTensor",
    "composes",
    "get_tensorized_shape",
    "in_pairs_",
    "init",
    "joint",
    "joint_random",
    "linear_of_conv1d",
    "remove_tensor_dropout",
    "replacement",
    "replaces",
    "tensor_dropout",
    "tensor_lasso",
    "transduct",
]
