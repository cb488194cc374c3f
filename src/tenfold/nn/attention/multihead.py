"""Factorized multi-head attention."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.nn.attention.checks import check_sequences, check_sizes, lengths_of
from tenfold.nn.attention.dense import PARTS, projections, put_together
from tenfold.nn.attention.heads import batched, joined, split, with_weights
from tenfold.nn.attention.init import deviations, new_key, zeros
from tenfold.nn.attention.masks import check_masks, merged
from tenfold.nn.attention.stacked import StackedView
from tenfold.nn.base import copied
from tenfold.nn.composite import Composite, composes
from tenfold.nn.linear import FactorizedLinear
from tenfold.nn.parts import (
    PartMethods,
    PartRanks,
    PartTexts,
    choices,
    dense_part,
    fitted_part,
    fittings,
    new_part,
)


@composes(nn.MultiheadAttention)
class FactorizedMultiheadAttention(StackedView, Composite):
    """Attention of several heads whose four projections are linear layers, each dense or factorized.

    The projections are the submodules `q_proj`, `k_proj`, `v_proj` and `out_proj`; the names of these parts
    are "q", "k", "v" and "out". Options, arguments and results are those of `nn.MultiheadAttention`, with
    these differences:

    - `is_causal` is a hint that saves work where it can; with `add_bias_kv` or `add_zero_attn` the mask
      itself is used, so that the keys that are added are looked at with the hint as without it.
    - Masks of other floating-point dtypes than the input's are converted.
    - Nested tensors are refused.

    A head is a block of outputs of q, k and v: a layout such as "(o0=8 o1) i -> o0 o1 i" gives the heads a
    mode of their own. Source: Vaswani et al. 2017, arXiv:1706.03762.

    >>> layer = FactorizedMultiheadAttention(512, 8, batch_first=True, rank={"q": 32, "k": 32, "v": 64})
    >>> x = torch.zeros(2, 10, 512)
    >>> layer(x, x, x, need_weights=False)[0].shape, type(layer.out_proj).__name__
    (torch.Size([2, 10, 512]), 'Linear')
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        rank: PartRanks = None,
        format: PartTexts = None,
        layout: PartTexts = None,
        example: Sequence[int] | None = None,
    ) -> None:
        """Random weights; each dense one has the deviation that it has in `nn.MultiheadAttention`.

        `rank`, `format` ("lowrank" by default) and `layout` are one choice for all parts or mappings from
        parts; a part without a rank is an `nn.Linear`. `example` is the shape of a query, for which the order
        of the steps is planned.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
        """
        kdim, vdim = (embed_dim if size is None else size for size in (kdim, vdim))
        check_sizes(embed_dim, kdim, vdim, num_heads, dropout)
        like = torch.empty((), device=device, dtype=dtype)
        inputs = {"q": embed_dim, "k": kdim, "v": vdim, "out": embed_dim}
        stds = deviations(embed_dim, kdim, vdim)
        parts = {
            part: new_part(
                inputs[part], embed_dim, choice, stds[part], zeros(bias, embed_dim, like), example, like
            )
            for part, choice in choices(PARTS, rank, format, layout).items()
        }
        learned = [new_key(embed_dim, like) if add_bias_kv else None for _ in range(2)]
        self._build(num_heads, dropout, add_zero_attn, batch_first, parts, *learned)

    def _build(
        self,
        heads: int,
        dropout: float,
        add_zero_attn: bool,
        batch_first: bool,
        parts: Mapping[str, nn.Linear | FactorizedLinear],
        bias_k: nn.Parameter | None,
        bias_v: nn.Parameter | None,
    ) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (parts[name] for name in PARTS)
        self.embed_dim: int = self.q_proj.in_features
        self.kdim: int = self.k_proj.in_features
        self.vdim: int = self.v_proj.in_features
        self.num_heads, self.head_dim = heads, self.embed_dim // heads
        self.dropout, self.add_zero_attn, self.batch_first = dropout, add_zero_attn, batch_first
        self.bias_k, self.bias_v = bias_k, bias_v
        self._qkv_same_embed_dim = self.kdim == self.vdim == self.embed_dim

    @classmethod
    def opened(cls, dense: nn.Module) -> Self:
        """The same function, of `nn.Linear`s whose parameters lie in the memory of those of `dense`."""
        assert isinstance(dense, nn.MultiheadAttention)
        parts = projections(dense)
        return cls._like(dense, parts, dense.bias_k, dense.bias_v)  # type: ignore[arg-type]

    @classmethod
    def from_dense(
        cls,
        dense: nn.MultiheadAttention,
        method: PartMethods,
        ranks: PartRanks = None,
        layout: PartTexts = None,
        example: Sequence[int] | None = None,
    ) -> Self:
        """Decompose a dense module, with memory of its own; each argument is one choice or one for each part.

        Parts that a mapping of methods does not name stay dense:
        `FactorizedMultiheadAttention.from_dense(dense, {"q": TruncatedSVD(), "k": TruncatedSVD()}, 16)`.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
            UnsupportedError: for a subclass of `nn.MultiheadAttention`.
        """
        return cls._fitted(dense, *fittings(PARTS, method, ranks, layout), example)

    @classmethod
    def _fitted(
        cls,
        dense: nn.MultiheadAttention,
        methods: Mapping[str, Any],
        ranks: Mapping[str, Any],
        layouts: Mapping[str, Any],
        example: Sequence[int] | None,
    ) -> Self:
        """As `from_dense`, with choices for every part, which are checked already."""
        parts = {
            name: fitted_part(part, methods[name], ranks[name], layouts[name], example)
            for name, part in projections(dense).items()
        }
        return cls._like(dense, parts, copied(dense.bias_k), copied(dense.bias_v))

    @classmethod
    def _like(
        cls,
        dense: nn.MultiheadAttention,
        parts: Mapping[str, nn.Linear | FactorizedLinear],
        bias_k: nn.Parameter | None,
        bias_v: nn.Parameter | None,
    ) -> Self:
        layer = cls.__new__(cls)
        layer._build(
            dense.num_heads, dense.dropout, dense.add_zero_attn, dense.batch_first, parts, bias_k, bias_v
        )
        return layer.train(dense.training)

    def to_dense(self) -> nn.MultiheadAttention:
        """The `nn.MultiheadAttention` that computes the same, with memory of its own.

        A bias of q, k or v that is missing becomes zeros if another one is there.

        Raises:
            UnsupportedError: if a projection has been replaced by something that is no linear layer.
        """
        parts = {name: dense_part(f"{name}_proj", self.get_submodule(f"{name}_proj")) for name in PARTS}
        dense = nn.MultiheadAttention(
            self.embed_dim, self.num_heads, self.dropout, False, False, self.add_zero_attn, self.kdim,
            self.vdim, self.batch_first, device="meta", dtype=parts["q"].weight.dtype,
        )  # fmt: skip
        put_together(dense, parts)
        dense.bias_k, dense.bias_v = copied(self.bias_k), copied(self.bias_v)
        return dense.train(self.training)

    def forward(
        self,
        query: Float[Tensor, "..."],
        key: Float[Tensor, "..."],
        value: Float[Tensor, "..."],
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs in the shape of `query`, and weights (batch, queries, keys) or None.

        Sequences are (length, features) without a batch, else (length, batch, features), or with
        `batch_first` (batch, length, features). Weights are those of each head, (batch, heads, queries,
        keys), unless they are averaged, and those after dropout. Without `need_weights` torch's
        `scaled_dot_product_attention` runs. A query that may look at no key gives NaN with weights, and
        without them what that function gives.

        Args:
            key_padding_mask: (batch, keys), or (keys,) without a batch; True, or minus infinity: not there.
            attn_mask: (queries, keys) or (batch * heads, queries, keys); True, or minus infinity: not seen.
            is_causal: says that `attn_mask`, which must be given, is causal.

        Raises:
            ShapeError, OptionError, UnsupportedError: for arguments that do not fit.
        """
        check_sequences((query, key, value), (self.embed_dim, self.kdim, self.vdim), self.batch_first)
        lengths = lengths_of(query, key, self.batch_first)
        check_masks(attn_mask, key_padding_mask, is_causal, self.num_heads, lengths, query.ndim == 3)
        if key_padding_mask is not None and query.ndim == 2:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        q = split(batched(self.q_proj(query), self.batch_first), self.num_heads)
        k = split(self._extended(batched(self.k_proj(key), self.batch_first), self.bias_k), self.num_heads)
        v = split(self._extended(batched(self.v_proj(value), self.batch_first), self.bias_v), self.num_heads)
        dropout = self.dropout if self.training else 0.0
        if is_causal and not need_weights and key_padding_mask is None and not self._extra:
            heads = F.scaled_dot_product_attention(q, k, v, None, dropout, True)
            return self.out_proj(joined(heads, query.ndim, self.batch_first)), None
        mask = merged(attn_mask, key_padding_mask, self.num_heads, self._extra, q.dtype)
        if not need_weights:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout)
            return self.out_proj(joined(heads, query.ndim, self.batch_first)), None
        heads, weights = with_weights(q, k, v, mask, dropout)
        if average_attn_weights:
            weights = weights.mean(dim=1)
        y = self.out_proj(joined(heads, query.ndim, self.batch_first))
        return y, weights if query.ndim == 3 else weights.squeeze(0)

    @property
    def _extra(self) -> int:
        """The number of keys that every sequence gets: a learned one, and a zero."""
        return (self.bias_k is not None) + self.add_zero_attn

    def _extended(
        self, x: Float[Tensor, "batch length features"], learned: Tensor | None
    ) -> Float[Tensor, "batch longer features"]:
        """Keys or values with those that every sequence gets."""
        if learned is not None:
            x = torch.cat([x, learned.to(x.dtype).expand(x.shape[0], -1, -1)], dim=1)
        return F.pad(x, (0, 0, 0, 1)) if self.add_zero_attn else x

    def extra_repr(self) -> str:
        """Sizes and options."""
        settings = f"dropout={self.dropout}, batch_first={self.batch_first}"
        return f"{self.embed_dim}, heads={self.num_heads}, {settings}"
