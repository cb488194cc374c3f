"""Tensor dropout and tensor lasso."""

from tenfold.compat.tltorch.tensor_hooks._tensor_dropout import (
    TensorDropout,
    remove_tensor_dropout,
    tensor_dropout,
)
from tenfold.compat.tltorch.tensor_hooks._tensor_lasso import (
    TensorLasso,
    remove_tensor_lasso,
    tensor_lasso,
)

__all__ = [
    "TensorDropout",
    "TensorLasso",
    "remove_tensor_dropout",
    "remove_tensor_lasso",
    "tensor_dropout",
    "tensor_lasso",
]
