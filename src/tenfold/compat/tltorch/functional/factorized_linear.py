"""Linear maps by tensorized matrices, one function for each factorization, all by one mechanism."""

from typing import Any

from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.tensorized import TensorizedTensor
from tenfold.compat.tltorch.programs import multiplied
from tenfold.core.errors import OptionError


def linear_tucker(
    tensor: Tensor, tucker_matrix: Any, transpose: bool = True, channels_first: bool = True
) -> Tensor:
    """As `linear_cp`; `channels_first` never meant anything."""
    return _split(tensor, tucker_matrix, transpose)


def linear_cp(tensor: Tensor, cp_matrix: Any, transpose: bool = True) -> Tensor:
    """`tensor` (batch, in) times the matrix, or its transpose: (batch, *sizes of the side that is left)."""
    return _split(tensor, cp_matrix, transpose)


def linear_blocktt(tensor: Tensor, tt_matrix: Any, transpose: bool = True) -> Tensor:
    """`tensor` (batch, in) times the matrix, or its transpose: (batch, out)."""
    return _product(tensor, tt_matrix, transpose)


def _split(tensor: Tensor, matrix: Any, transpose: bool) -> Tensor:
    return _product(tensor, matrix, transpose).unflatten(-1, matrix.tensorized_shape[0 if transpose else 1])


def _product(tensor: Tensor, matrix: Any, transpose: bool) -> Tensor:
    if not isinstance(matrix, TensorizedTensor) or matrix.ndim != 2:
        raise OptionError(
            f"{matrix!r} came for a tensorized matrix.", "Give one matrix: stack[i] is one of many."
        )
    rows, columns = matrix.sides()
    inputs, outputs = (columns, rows) if transpose else (rows, columns)
    flat = tensor.reshape(-1, matrix.shape[1 if transpose else 0])
    return multiplied(flat, matrix.gated_arrays(), matrix.network, inputs, outputs)
