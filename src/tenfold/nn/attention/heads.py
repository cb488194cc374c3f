"""Attention of heads that are projected already."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Heads = Float[Tensor, "batch heads length size"]
"""Queries, keys or values."""


def batched(x: Float[Tensor, "..."], batch_first: bool) -> Float[Tensor, "batch length features"]:
    """A view with the batch first, also where there is none."""
    if x.ndim == 2:
        return x.unsqueeze(0)
    return x if batch_first else x.transpose(0, 1)


def joined(heads: Heads, ndim: int, batch_first: bool) -> Float[Tensor, "..."]:
    """The heads as features again, with so many axes in the order in which `batched` has found them."""
    if ndim == 3 and not batch_first:
        return heads.permute(2, 0, 1, 3).flatten(2)
    y = heads.transpose(1, 2).flatten(2)
    return y if ndim == 3 else y.squeeze(0)


def split(x: Float[Tensor, "batch length features"], heads: int) -> Heads:
    """The features as so many heads: a view.

    >>> split(torch.zeros(2, 5, 12), 3).shape
    torch.Size([2, 3, 5, 4])
    """
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def with_weights(
    q: Heads, k: Heads, v: Heads, mask: Tensor | None, dropout: float
) -> tuple[Heads, Float[Tensor, "batch heads queries keys"]]:
    """softmax(q k^T / sqrt(size) + mask) v, and the weights after dropout."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    if dropout > 0:
        weights = F.dropout(weights, dropout)
    return weights @ v, weights
