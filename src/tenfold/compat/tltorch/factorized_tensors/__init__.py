"""Tensors and matrices in factorized form, and their initialisation."""

from tenfold.compat.tltorch.factorized_tensors import init
from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.factorized_tensors.block_tt import BlockTT
from tenfold.compat.tltorch.factorized_tensors.complex_factorized_tensors import (
    ComplexCPTensor,
    ComplexDenseTensor,
    ComplexTTTensor,
    ComplexTuckerTensor,
)
from tenfold.compat.tltorch.factorized_tensors.complex_tensorized_matrices import (
    ComplexBlockTT,
    ComplexCPTensorized,
    ComplexDenseTensorized,
    ComplexTuckerTensorized,
)
from tenfold.compat.tltorch.factorized_tensors.factorized_tensors import (
    CPTensor,
    DenseTensor,
    TTTensor,
    TuckerTensor,
)
from tenfold.compat.tltorch.factorized_tensors.init import (
    block_tt_init,
    cp_init,
    tensor_init,
    tt_init,
    tucker_init,
)
from tenfold.compat.tltorch.factorized_tensors.tensorized import TensorizedTensor
from tenfold.compat.tltorch.factorized_tensors.tensorized_matrices import (
    CPTensorized,
    DenseTensorized,
    TuckerTensorized,
)

__all__ = [
    "BlockTT",
    "CPTensor",
    "CPTensorized",
    "ComplexBlockTT",
    "ComplexCPTensor",
    "ComplexCPTensorized",
    "ComplexDenseTensor",
    "ComplexDenseTensorized",
    "ComplexTTTensor",
    "ComplexTuckerTensor",
    "ComplexTuckerTensorized",
    "DenseTensor",
    "DenseTensorized",
    "FactorizedTensor",
    "TTTensor",
    "TensorizedTensor",
    "TuckerTensor",
    "TuckerTensorized",
    "block_tt_init",
    "cp_init",
    "init",
    "tensor_init",
    "tt_init",
    "tucker_init",
]
