"""Factorized layers of transformers: attention and feed-forward."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.nn.attention.dense import PARTS
from tenfold.nn.attention.multihead import FactorizedMultiheadAttention
from tenfold.nn.base import new_bias
from tenfold.nn.parts import (
    Choice,
    PartMethods,
    PartRanks,
    PartTexts,
    choices,
    dense_part,
    fitted_part,
    fittings,
    new_part,
)

FEED_FORWARD = ("linear1", "linear2")
Activation = str | Callable[[Tensor], Tensor]


class TransformerLayer(nn.Module):
    """What the two layers share: torch's own layer with other attention and feed-forward parts in it.

    All weights are those of linear layers, each dense or factorized: the parts "q", "k", "v" and "out" of
    each attention, and "linear1" and "linear2". Settings and normalisation are torch's.

    `nn.Transformer` draws the parameters of all that it is given anew, each by its own shape, which is not
    how factors begin: build it first, and put these layers into it.
    """

    kind: ClassVar[type[nn.Module]]
    """Torch's layer."""
    attentions: ClassVar[tuple[str, ...]]
    """The names of its attention modules."""

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        rank: PartRanks = None,
        format: PartTexts = None,
        layout: PartTexts = None,
        example: Sequence[int] | None = None,
    ) -> None:
        """Random weights; each dense one has the deviation that it has in torch's layer.

        `rank`, `format` ("lowrank" by default) and `layout` are one choice for all parts or mappings from
        parts; a part without a rank is an `nn.Linear`. `example` is the shape of an input, for which the
        order of the steps is planned. Where self-attention and attention to a memory are to differ, put a
        `FactorizedMultiheadAttention` in the place of one.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
        """
        check_feed_forward(dim_feedforward, activation)
        like = torch.empty((), device=device, dtype=dtype)
        chosen = choices((*PARTS, *FEED_FORWARD), rank, format, layout)
        attention = [
            FactorizedMultiheadAttention(
                d_model, nhead, dropout, bias, batch_first=batch_first, device=device, dtype=dtype,
                **of_attention(chosen), example=example,
            )
            for _ in self.attentions
        ]  # fmt: skip
        super().__init__(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first,
            bias, device="meta", dtype=like.dtype,
        )  # fmt: skip
        for name, module in zip(self.attentions, attention, strict=True):
            setattr(self, name, module)
        sizes = {"linear1": (d_model, dim_feedforward), "linear2": (dim_feedforward, d_model)}
        for name, (inputs, outputs) in sizes.items():
            own = new_bias(outputs, inputs, like) if bias else None
            std = (3 * inputs) ** -0.5
            setattr(self, name, new_part(inputs, outputs, chosen[name], std, own, example, like))
        begin_norms(self, like.device)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As modules do: torch's decoder layer would put relu over an activation that is a module."""
        nn.Module.__setstate__(self, state)

    @classmethod
    def from_dense(
        cls,
        dense: nn.Module,
        method: PartMethods,
        ranks: PartRanks = None,
        layout: PartTexts = None,
        example: Sequence[int] | None = None,
    ) -> Self:
        """Decompose torch's layer, with memory of its own; each argument is one choice or one for each part.

        Parts that a mapping of methods does not name stay dense.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
            UnsupportedError: for another type of layer or of its parts, also for subclasses.
        """
        check_type("the layer", dense, cls.kind)
        methods, each, layouts = fittings((*PARTS, *FEED_FORWARD), method, ranks, layout)
        parts: dict[str, nn.Module] = {}
        for name in cls.attentions:
            attention = check_type(name, dense.get_submodule(name), nn.MultiheadAttention)
            parts[name] = FactorizedMultiheadAttention._fitted(attention, methods, each, layouts, example)
        for name in FEED_FORWARD:
            linear = check_type(name, dense.get_submodule(name), nn.Linear)
            parts[name] = fitted_part(linear, methods[name], each[name], layouts[name], example)
        return exchanged(dense, parts, cls)

    def to_dense(self) -> Any:
        """Torch's layer that computes the same, with memory of its own.

        Raises:
            UnsupportedError: if a part has been replaced by something that has no dense weight.
        """
        parts: dict[str, nn.Module] = {}
        for name in self.attentions:
            attention = check_type(name, self.get_submodule(name), FactorizedMultiheadAttention)
            parts[name] = attention.to_dense()
        for name in FEED_FORWARD:
            parts[name] = dense_part(name, self.get_submodule(name))
        return exchanged(self, parts, self.kind)


class FactorizedTransformerEncoderLayer(TransformerLayer, nn.TransformerEncoderLayer):
    """Self-attention and a feed-forward network, each weight dense or factorized; see `TransformerLayer`.

    It is an `nn.TransformerEncoderLayer` with its arguments, and goes into an `nn.TransformerEncoder`. The
    fused kernel that torch has for evaluation needs dense weights and never runs; nested tensors are refused.

    >>> layer = FactorizedTransformerEncoderLayer(64, 4, 128, batch_first=True, rank=8)
    >>> encoder = nn.TransformerEncoder(layer, 2).eval()
    >>> encoder(torch.zeros(2, 10, 64)).shape, type(encoder.layers[1].linear1).__name__
    (torch.Size([2, 10, 64]), 'FactorizedLinear')
    """

    kind = nn.TransformerEncoderLayer
    attentions = ("self_attn",)

    def forward(
        self,
        src: Float[Tensor, "..."],
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "..."]:
        """Sequences and masks as `FactorizedMultiheadAttention.forward` takes them."""

        def attend(x: Tensor) -> Tensor:
            y = self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)[0]
            return self.dropout1(y)

        def feed(x: Tensor) -> Tensor:
            return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))

        if self.norm_first:
            x = src + attend(self.norm1(src))
            return x + feed(self.norm2(x))
        x = self.norm1(src + attend(src))
        return self.norm2(x + feed(x))


class FactorizedTransformerDecoderLayer(TransformerLayer, nn.TransformerDecoderLayer):
    """Self-attention, attention to a memory and a feed-forward network; see `TransformerLayer`.

    It is an `nn.TransformerDecoderLayer` with its arguments, and goes into an `nn.TransformerDecoder`.

    >>> layer = FactorizedTransformerDecoderLayer(64, 4, 128, rank={"linear1": 8, "linear2": 8})
    >>> decoder = nn.TransformerDecoder(layer, 2)
    >>> decoder(torch.zeros(10, 2, 64), torch.zeros(7, 2, 64)).shape
    torch.Size([10, 2, 64])
    """

    kind = nn.TransformerDecoderLayer
    attentions = ("self_attn", "multihead_attn")


def of_attention(chosen: Mapping[str, Choice]) -> dict[str, Any]:
    """The choices for the parts of attention, as its arguments."""
    some = {name: chosen[name] for name in PARTS if chosen[name].rank is not None}
    return {
        field: {name: getattr(c, field) for name, c in some.items()} for field in ("rank", "format", "layout")
    }


def begin_norms(layer: nn.Module, device: torch.device) -> None:
    """Bring the normalisation of a layer from the meta device to its own, with ones and zeros."""
    for module in layer.children():
        if isinstance(module, nn.LayerNorm):
            module.to_empty(device=device)
            module.reset_parameters()


def exchanged(layer: nn.Module, parts: Mapping[str, nn.Module], kind: type[nn.Module]) -> Any:
    """A deep copy of a layer as another type, with other submodules under some names."""
    known: dict[int, Any] = {id(layer.get_submodule(name)): part for name, part in parts.items()}
    twin = copy.deepcopy(layer, known)
    if "activation" in twin._modules:
        twin.__dict__.pop("activation", None)  # torch's decoder layer, copied, hides a module under relu
    twin.__class__ = kind
    return twin


def check_type(name: str, module: nn.Module, kind: type[nn.Module]) -> Any:
    """The module, if it is of exactly this type; a subclass may compute something else."""
    if type(module) is not kind:
        raise UnsupportedError(f"{name} is a {type(module).__name__}.", f"Give an {kind.__name__}.")
    return module


def check_feed_forward(size: int, activation: Activation) -> None:
    """Raise OptionError for a feed-forward network that a layer cannot have."""
    if size < 1:
        raise OptionError(f"dim_feedforward came as {size}.", "Give 1 or more.")
    if isinstance(activation, str) and activation not in ("relu", "gelu"):
        raise OptionError(f"activation came as {activation!r}.", 'Give "relu", "gelu" or a function.')
