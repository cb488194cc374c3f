"""How the weights of a new attention module begin: as those of `nn.MultiheadAttention`."""

import math

import torch
from torch import Tensor, nn


def deviations(embed_dim: int, kdim: int, vdim: int) -> dict[str, float]:
    """The deviation of each part's weight in a new `nn.MultiheadAttention`.

    Xavier's for q, k and v, whose weights count as one where their sizes are equal; that of `nn.Linear` for
    the last.

    >>> round(deviations(512, 512, 512)["q"], 4), round(deviations(512, 512, 256)["q"], 4)
    (0.0312, 0.0442)
    """
    outputs = 3 * embed_dim if kdim == vdim == embed_dim else embed_dim
    xavier = {p: math.sqrt(2 / (n + outputs)) for p, n in zip("qkv", (embed_dim, kdim, vdim), strict=True)}
    return {**xavier, "out": 1 / math.sqrt(3 * embed_dim)}


def zeros(bias: bool, size: int, like: Tensor) -> nn.Parameter | None:
    """A bias of zeros, if there is to be one."""
    return nn.Parameter(torch.zeros(size, dtype=like.dtype, device=like.device)) if bias else None


def new_key(embed_dim: int, like: Tensor) -> nn.Parameter:
    """A learned key or value, (1, 1, features), of Xavier's deviation."""
    normal = torch.empty(1, 1, embed_dim, dtype=like.dtype, device=like.device).normal_(0, embed_dim**-0.5)
    return nn.Parameter(normal)
