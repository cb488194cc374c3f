"""Kernels and the tensors that are factorized for them: a train has the outputs last."""

from collections.abc import Sequence

from torch import Tensor


def outputs_last(factorization: str) -> bool:
    """Whether a factorization holds the outputs after the taps.

    >>> outputs_last("TT"), outputs_last("CP")
    (True, False)
    """
    return factorization.lower() in ("tt", "complextt")


def kernel_shape_to_factorization_shape(factorization: str, kernel_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of the tensor for a kernel (out, in, *taps).

    >>> kernel_shape_to_factorization_shape("TT", (8, 4, 3, 3))
    (4, 3, 3, 8)
    """
    out, *rest = kernel_shape
    return (*rest, out) if outputs_last(factorization) else (out, *rest)


def factorization_shape_to_kernel_shape(
    factorization: str, factorization_shape: Sequence[int]
) -> tuple[int, ...]:
    """The inverse of `kernel_shape_to_factorization_shape`."""
    *rest, out = factorization_shape
    return (out, *rest) if outputs_last(factorization) else tuple(factorization_shape)


def kernel_to_tensor(factorization: str, kernel: Tensor, stacked: int = 0) -> Tensor:
    """A kernel, or a stack of them over so many axes, as the tensor that is factorized."""
    return kernel.movedim(stacked, -1) if outputs_last(factorization) else kernel


def tensor_to_kernel(factorization: str, tensor: Tensor, stacked: int = 0) -> Tensor:
    """The inverse of `kernel_to_tensor`."""
    return tensor.movedim(-1, stacked) if outputs_last(factorization) else tensor
