"""`nn.MultiheadAttention` taken apart into four linear layers, and put together from them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.errors import UnsupportedError

PARTS = ("q", "k", "v", "out")
"""The projections: of queries, keys and values, and that of what the heads give."""


def projections(dense: nn.MultiheadAttention) -> dict[str, nn.Linear]:
    """The parts "q", "k", "v" and "out" of `dense` as linear layers in its memory.

    >>> dense = nn.MultiheadAttention(4, 2)
    >>> parts = projections(dense)
    >>> parts["k"].weight.data_ptr() == dense.in_proj_weight[4:].data_ptr()
    True

    Raises:
        UnsupportedError: for other types, also subclasses: they may compute something else.
    """
    if type(dense) is not nn.MultiheadAttention:
        raise UnsupportedError(
            f"a {type(dense).__name__} came.", "Give an nn.MultiheadAttention, not a subclass of it."
        )
    biases: list[Any] = [None] * 3 if dense.in_proj_bias is None else thirds(dense.in_proj_bias)
    layers = [linear(w, b) for w, b in zip(first_weights(dense), biases, strict=True)]
    layers.append(linear(dense.out_proj.weight, dense.out_proj.bias))
    return {name: layer.train(dense.training) for name, layer in zip(PARTS, layers, strict=True)}


def first_weights(dense: nn.MultiheadAttention) -> list[nn.Parameter]:
    """The weights of q, k and v."""
    if dense._qkv_same_embed_dim:
        return thirds(dense.in_proj_weight)
    return [dense.get_parameter(f"{name}_proj_weight") for name in PARTS[:3]]


def thirds(stacked: Tensor) -> list[nn.Parameter]:
    """The three parts of a parameter, in its memory."""
    return [nn.Parameter(part, stacked.requires_grad) for part in stacked.detach().chunk(3)]


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """The linear layer of these parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta", dtype=weight.dtype)
    layer.weight, layer.bias = weight, bias  # type: ignore[assignment]
    return layer


def put_together(dense: nn.MultiheadAttention, parts: Mapping[str, nn.Linear]) -> None:
    """Give `dense` the weights and biases of its parts; it keeps the parameters of those that stand alone."""
    first = [parts[name] for name in PARTS[:3]]
    trained = any(p.weight.requires_grad for p in first)
    if dense._qkv_same_embed_dim:
        dense.in_proj_weight = nn.Parameter(torch.cat([p.weight.detach() for p in first]), trained)
    else:
        for name in PARTS[:3]:
            setattr(dense, f"{name}_proj_weight", parts[name].weight)
    dense.in_proj_bias = stacked_bias(first)  # type: ignore[assignment]
    dense.out_proj.weight = parts["out"].weight
    dense.out_proj.bias = parts["out"].bias


def stacked_bias(layers: list[nn.Linear]) -> nn.Parameter | None:
    """The biases below one another, with zeros where a layer has none; None if none has."""
    biases: list[Tensor | None] = [layer.bias for layer in layers]
    if all(b is None for b in biases):
        return None
    filled = [
        layer.weight.new_zeros(layer.out_features) if b is None else b.detach()
        for layer, b in zip(layers, biases, strict=True)
    ]
    return nn.Parameter(torch.cat(filled), any(b is not None and b.requires_grad for b in biases))
