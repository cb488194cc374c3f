"""How kernels lie in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(shape: Sequence[int]) -> torch.memory_format:
    """Channels-last for kernels of images and volumes, contiguous for all else.

    A channels-last kernel brings the activation into that order. Were kernels with one tap left contiguous,
    activations would be turned between steps, and gradients beside them: up to a third more memory, at the
    same speed on two threads, though up to an eighth faster on one.
    """
    return CHANNELS_LAST.get(len(shape), torch.contiguous_format)


def in_memory_order(factor: Tensor) -> Tensor:
    """A copy in the memory format of its shape, also where the strides of the original could pass for it."""
    kernel = torch.empty_like(factor, memory_format=memory_format(factor.shape))
    return kernel if factor.is_meta else kernel.copy_(factor)


def laid_out(factor: Tensor) -> Tensor:
    """The factor itself if it lies in the memory format of its shape; otherwise a copy that does."""
    wanted = torch.empty_like(factor, device="meta", memory_format=memory_format(factor.shape))
    return factor if factor.stride() == wanted.stride() else in_memory_order(factor)


def repeated(kernel: Tensor, times: int) -> Tensor:
    """The kernel once for each of so many groups of channels."""
    ones = (1,) * (kernel.ndim - 1)
    if memory_format(kernel.shape) is torch.contiguous_format:
        return kernel.repeat(times, *ones)
    return kernel.movedim(1, -1).repeat(times, *ones).movedim(-1, 1)  # which `vmap` can do, unlike a clone
