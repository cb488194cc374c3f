"""How kernels lie in memory."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(shape: Sequence[int]) -> torch.memory_format:
    """Channels-last for kernels of images and volumes with several taps, contiguous for all else.

    A channels-last kernel brings the activation into that order. A kernel with one tap stays contiguous and
    takes the activation as it comes, in either order: so a contiguous input is turned after the first 1×1,
    where it has fewer channels. `benchmarks/layers` has the times.
    """
    if len(shape) not in CHANNELS_LAST or math.prod(shape[2:]) == 1:
        return torch.contiguous_format
    return CHANNELS_LAST[len(shape)]


def in_memory_order(factor: Tensor) -> Tensor:
    """A copy in the memory format of its shape, also where the strides of the original could pass for it."""
    kernel = torch.empty_like(factor, memory_format=memory_format(factor.shape))
    return kernel if factor.is_meta else kernel.copy_(factor)


def repeated(kernel: Tensor, times: int) -> Tensor:
    """The kernel once for each of so many groups of channels."""
    ones = (1,) * (kernel.ndim - 1)
    if memory_format(kernel.shape) is torch.contiguous_format:
        return kernel.repeat(times, *ones)
    return kernel.movedim(1, -1).repeat(times, *ones).movedim(-1, 1)  # which `vmap` can do, unlike a clone
