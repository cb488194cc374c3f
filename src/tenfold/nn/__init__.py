"""Factorized layers."""

from tenfold.core.tensorized_shape import get_tensorized_shape
from tenfold.nn import init
from tenfold.nn.attention import FactorizedMultiheadAttention
from tenfold.nn.base import REPLACEMENTS, FactorizedLayer, Role, replacement, replaces
from tenfold.nn.bilinear import FactorizedBilinear
from tenfold.nn.bond_dropout import remove_tensor_dropout, tensor_dropout
from tenfold.nn.complex_pairs import ComplexPairs, TensorizedPairs, in_pairs_
from tenfold.nn.composite import OPENINGS, Composite, composes
from tenfold.nn.contraction import TCL
from tenfold.nn.conv import FactorizedConv
from tenfold.nn.conv_transposed import FactorizedConvTranspose
from tenfold.nn.embedding import FactorizedEmbedding
from tenfold.nn.embedding_bag import FactorizedEmbeddingBag
from tenfold.nn.gates import GatedTensor
from tenfold.nn.joint import joint, joint_random
from tenfold.nn.lasso import TensorLasso, tensor_lasso
from tenfold.nn.linear import FactorizedLinear
from tenfold.nn.recurrent_layers import FactorizedGRU, FactorizedLSTM, FactorizedRNN
from tenfold.nn.regression import TRL
from tenfold.nn.table import FactorizedTable, RowError
from tenfold.nn.tensor import DenseFallbackWarning, FactorizedTensor
from tenfold.nn.tensor_index import TensorIndexError
from tenfold.nn.tensor_view import FactorizedView
from tenfold.nn.tensorized import TensorizedTensor
from tenfold.nn.transduction import transduct
from tenfold.nn.transformer import FactorizedTransformerDecoderLayer, FactorizedTransformerEncoderLayer
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
