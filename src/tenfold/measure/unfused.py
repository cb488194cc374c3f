"""Running layers as their published steps: what happens inside a fused kernel cannot be counted."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def unfused_layers() -> Iterator[None]:
    """Let `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` call one operator a step.

    >>> with unfused_layers():
    ...     torch.backends.mha.get_fastpath_enabled()
    False
    """
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextmanager
def unfused_kernels() -> Iterator[None]:
    """As `unfused_layers`, and attention and recurrent layers run as matrix products.

    >>> with unfused_kernels():
    ...     torch.backends.cudnn.enabled
    False
    """
    math, cudnn = sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False)
    with unfused_layers(), math, cudnn, _without_onednn():
        yield


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Torch's own switch for a block, `mkldnn.flags`, warns of Intel GPUs; so this one."""
    was = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = was
