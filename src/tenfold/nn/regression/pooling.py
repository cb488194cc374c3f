"""A linear layer behind an average pooling, as one linear layer."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.errors import ShapeError
from tenfold.nn.base import copied


def unpooled(linear: nn.Linear, shape: Sequence[int], pool: Sequence[int]) -> nn.Linear:
    """The layer that computes what adaptive average pooling to `pool`, flattening and `linear` compute.

    It takes the flattened input (prod(shape)); the last axes of `shape` are those that are pooled.

    Raises:
        ShapeError: if the pooled input has not as many elements as `linear` takes.

    >>> head, x = nn.Linear(3, 5), torch.randn(2, 3, 4, 4)
    >>> torch.allclose(unpooled(head, (3, 4, 4), (1, 1))(x.flatten(1)), head(x.mean((2, 3))), atol=1e-6)
    True
    """
    kept = tuple(shape[: len(shape) - len(pool)])
    if math.prod((*kept, *pool)) != linear.in_features:
        raise ShapeError(
            f"an input {tuple(shape)} pooled to {(*kept, *pool)} came for {linear.in_features} features.",
            "Give the shape of the input before the pooling, and the size to which it is pooled.",
        )
    weight = linear.weight.detach().reshape(linear.out_features, *kept, *pool)
    for k, (size, cells) in enumerate(zip(shape[len(kept) :], pool, strict=True), start=1 + len(kept)):
        weight = torch.tensordot(weight, averages(size, cells, weight), dims=([k], [0])).movedim(-1, k)
    dense = nn.Linear(math.prod(shape), linear.out_features, linear.bias is not None, device="meta")
    dense.weight = nn.Parameter(weight.reshape(linear.out_features, -1), linear.weight.requires_grad)
    dense.bias = copied(linear.bias)  # type: ignore[assignment]
    return dense.train(linear.training)


def averages(size: int, cells: int, like: Tensor) -> Float[Tensor, "cells size"]:
    """The matrix of adaptive average pooling: cell c is the mean from floor(c n / m) to ceil((c + 1) n / m).

    >>> averages(4, 2, torch.zeros(()))
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    place = torch.arange(size, device=like.device)
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    start, end = cell * size // cells, -(-(cell + 1) * size // cells)
    inside = (place >= start) & (place < end)
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)
