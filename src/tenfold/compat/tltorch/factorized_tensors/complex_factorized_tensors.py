"""The factorizations of a complex tensor, kept as pairs of real numbers."""

from tenfold.compat.tltorch.factorized_tensors.complex_handler import ComplexHandler
from tenfold.compat.tltorch.factorized_tensors.factorized_tensors import (
    CPTensor,
    DenseTensor,
    TTTensor,
    TuckerTensor,
)


class ComplexDenseTensor(ComplexHandler, DenseTensor, name="ComplexDense"):  # type: ignore[misc]
    """A complex tensor that is not factorized."""


class ComplexCPTensor(ComplexHandler, CPTensor, name="ComplexCP"):  # type: ignore[misc]
    """A complex sum of rank-one tensors.

    >>> x = ComplexCPTensor.new((4, 3, 2), rank=2)
    >>> x.to_tensor().dtype, {p.dtype for p in x.parameters()}
    (torch.complex64, {torch.float32})
    """


class ComplexTuckerTensor(ComplexHandler, TuckerTensor, name="ComplexTucker"):  # type: ignore[misc]
    """A complex tensor in Tucker form."""


class ComplexTTTensor(ComplexHandler, TTTensor, name="ComplexTT"):  # type: ignore[misc]
    """A complex tensor train."""
