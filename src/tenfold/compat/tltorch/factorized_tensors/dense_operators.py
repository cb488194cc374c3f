"""Operators between a factorized tensor and numbers or tensors; their results are dense."""

from typing import Any

import torch


class DenseOperators:
    """The operators of Python as torch has them, by way of the functions of torch.

    To add or multiply without making tensors dense, use the formats: `a.value + b.value`.
    """

    def __add__(self, other: Any) -> Any:
        return torch.add(self, other)  # type: ignore[call-overload]

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return torch.sub(self, other)  # type: ignore[call-overload]

    def __rsub__(self, other: Any) -> Any:
        return torch.rsub(self, other)  # type: ignore[call-overload]

    def __mul__(self, other: Any) -> Any:
        return torch.mul(self, other)  # type: ignore[call-overload]

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return torch.div(self, other)  # type: ignore[call-overload]

    def __neg__(self) -> Any:
        return torch.neg(self)  # type: ignore[arg-type]

    def __matmul__(self, other: Any) -> Any:
        return torch.matmul(self, other)  # type: ignore[arg-type]

    def __rmatmul__(self, other: Any) -> Any:
        return torch.matmul(other, self)

    @property
    def T(self) -> Any:
        """The dense transpose."""
        return torch.t(self)  # type: ignore[arg-type]
