"""The factorizations of a complex tensorized matrix, kept as pairs of real numbers."""

from tenfold.compat.tltorch.factorized_tensors.block_tt import BlockTT
from tenfold.compat.tltorch.factorized_tensors.complex_handler import ComplexHandler
from tenfold.compat.tltorch.factorized_tensors.tensorized import TensorizedTensor
from tenfold.compat.tltorch.factorized_tensors.tensorized_matrices import (
    CPTensorized,
    DenseTensorized,
    TuckerTensorized,
)


class ComplexDenseTensorized(ComplexHandler, DenseTensorized, name="ComplexDense"):  # type: ignore[misc]
    """A complex matrix that is not factorized."""


class ComplexCPTensorized(ComplexHandler, CPTensorized, name="ComplexCP"):  # type: ignore[misc]
    """A complex matrix as a sum of rank-one tensors."""


class ComplexTuckerTensorized(ComplexHandler, TuckerTensorized, name="ComplexTucker"):  # type: ignore[misc]
    """A complex matrix in Tucker form."""


class ComplexBlockTT(ComplexHandler, BlockTT, name="ComplexTT"):  # type: ignore[misc]
    """A complex block tensor train; "ComplexBlockTT" names it too."""


TensorizedTensor._factorizations["complexblocktt"] = ComplexBlockTT
