"""Operators between a factorized tensor and numbers or tensors; their results are dense."""

from typing import Any

import torch


class DenseOperators:
    """The operators of Python as torch has them, by way of the functions of torch.

    To add or multiply without making tensors dense, use the formats: `a.value + b.value`.
    """

    def __add__(self, other: Any) -> Any:
        return torch.add(_any(self), other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return torch.sub(_any(self), other)

    def __rsub__(self, other: Any) -> Any:
        return torch.rsub(_any(self), other)

    def __mul__(self, other: Any) -> Any:
        return torch.mul(_any(self), other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return torch.div(_any(self), other)

    def __neg__(self) -> Any:
        return torch.neg(_any(self))

    def __matmul__(self, other: Any) -> Any:
        return torch.matmul(_any(self), other)

    def __rmatmul__(self, other: Any) -> Any:
        return torch.matmul(other, _any(self))

    @property
    def T(self) -> Any:
        """The dense transpose."""
        return torch.t(_any(self))


def _any(x: Any) -> Any:
    """What torch takes as a tensor, though its types do not say so."""
    return x
