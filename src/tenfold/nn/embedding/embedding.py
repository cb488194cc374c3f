"""Factorized embedding layer."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.core.layout import Layout
from tenfold.formats import Format, Ranks
from tenfold.nn.base import replaces
from tenfold.nn.embedding.options import RowOptions, counted
from tenfold.nn.embedding.table import FactorizedTable, drawn, planned_counts
from tenfold.nn.embedding.vocabulary import table_layout


@replaces(nn.Embedding)
class FactorizedEmbedding(FactorizedTable):
    """The rows of a table that the indices ask for; the table is held as factors and not made.

    The settings are those of `nn.Embedding`, with these differences:

    - `padding_idx`: the row is kept beside the factors (`padding`, None for zeros), as they have no row of
      its own that training could leave alone. It is exactly the dense layer's, and stays it.
    - `max_norm`: rows that come out are scaled down, the factors stay. Outputs and gradients are those of the
      dense layer, which scales its table down; a row that is not asked for looks longer in `to_dense`.
    - `sparse`: the factors that carry the vocabulary have sparse gradients, the others dense ones. The
      vocabulary must be in one axis.

    Where the vocabulary does not split into the sizes of the layout, the table is padded by rows that no
    index asks for: by itself where the layout leaves sizes open, or to `padded_to` rows.

    >>> layer = FactorizedEmbedding(30522, 768, rank=32)
    >>> layer(torch.tensor([[2, 7, 2]])).shape, layer.program.kinds
    (torch.Size([1, 3, 768]), ('gather', 'merge'))
    >>> train = "(v0 v1 v2) (o0 o1 o2) -> (v0 o0) (v1 o1) (v2 o2)"
    >>> layer = FactorizedEmbedding(30522, 768, format="tt", rank=16, layout=train)
    >>> layer.weight.numel(), layer.stored_rows
    (73536, 30752)
    """

    padding: Tensor | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        rank: Ranks | None = None,
        params: int | None = None,
        format: str = "lowrank",
        layout: str = "v o -> v o",
        padded_to: int | None = None,
        std: float = 1.0,
        example: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Random factors; the entries of the table have the deviation of `nn.Embedding`'s, 1, or `std`.

        The size is given by `rank`, or by `params`, the number of elements to stay within. `example` is the
        shape of an input, for which the order of the steps is planned.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
        """
        like = torch.empty((), device=device, dtype=dtype)
        options = RowOptions(
            counted(padding_idx, num_embeddings), max_norm, norm_type, scale_grad_by_freq, sparse
        )
        bound = table_layout(layout, num_embeddings, embedding_dim, padded_to)
        value = drawn(bound, num_embeddings, format, rank, params, std, like)
        self._build(value, bound, num_embeddings, options, None, example)

    def _build(
        self,
        value: Format,
        layout: Layout,
        rows: int,
        options: RowOptions,
        padding: Tensor | None,
        example: Sequence[int] | None,
    ) -> None:
        self._keep(value, layout, rows, options, (planned_counts(example), None))
        self.planned_rows = planned_counts(example)
        self.register_buffer("padding", padding)

    @classmethod
    def from_dense(
        cls, dense: nn.Module, value: Format, layout: Layout, example: Sequence[int] | None = None
    ) -> Self:
        """The layer with the settings and the padding row of `dense`, and the table `value`."""
        layer = cls.__new__(cls)
        rows: int = dense.num_embeddings  # type: ignore[assignment]
        options = RowOptions.of(dense, rows)
        layer._build(value, layout, rows, options, _padding(dense, options.padding_idx), example)
        return layer.train(dense.training)

    def dense_weight(self) -> Float[Tensor, "num dim"]:
        """The table with its padding row, without rows that no index asks for; differentiable."""
        table = super().dense_weight()
        if self.padding_idx is None:
            return table
        numbers = torch.arange(len(table), device=table.device).unsqueeze(-1)
        row = torch.zeros_like(table[0]) if self.padding is None else self.padding
        return torch.where(numbers == self.padding_idx, row, table)

    def to_dense(self) -> nn.Embedding:
        """The `nn.Embedding` that computes the same."""
        o, weight = self.options, self.dense_weight().detach().contiguous()
        dense = nn.Embedding(
            len(weight), self.embedding_dim, o.padding_idx, o.max_norm, o.norm_type, o.scale_grad_by_freq,
            o.sparse, weight,
        )  # fmt: skip
        dense.weight.requires_grad_(self.weight.requires_grad)
        return dense.train(self.training)

    def planned(self) -> tuple[int, ...]:
        """(number of indices,)."""
        return (self.planned_rows,)

    def forward(self, input: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        """Indices of any shape -> their rows along a new last axis; raises RowError as `rows`."""
        indices = input if input.ndim == 1 else input.reshape(-1)
        if self.options.padding_idx is None:
            rows = self.rows(indices, None)
        else:
            rows = self._rows_with_padding(indices, indices == self.options.padding_idx)
        rows = self.options.act(rows, indices, self.num_embeddings)
        return rows if input.ndim == 1 else rows.reshape(*input.shape, self.embedding_dim)

    def _rows_with_padding(self, indices: Int[Tensor, " n"], padded: Tensor) -> Float[Tensor, "n dim"]:
        """Rows, of which that of the padding is constant; where it is zero, a short part of it is zeroed."""
        if self.padding is None:
            return self.rows(indices, padded)
        rows = self.rows(indices, None)
        return torch.where(padded.unsqueeze(-1), self.padding.to(rows.dtype), rows)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A state with a padding row brings it in, one without it says that the row is zero."""
        if self.padding_idx is not None and any(key.startswith(f"{prefix}weight.") for key in state_dict):
            row = state_dict.get(f"{prefix}padding")
            like = self.weight.factors()[0]
            self.padding = (
                None if row is None else torch.empty_like(row, dtype=like.dtype, device=like.device)
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _padding(dense: nn.Module, index: int | None) -> Tensor | None:
    """A copy of the padding row of a dense or factorized layer; None if it is zero."""
    if index is None:
        return None
    if isinstance(dense, FactorizedEmbedding):
        return None if dense.padding is None else dense.padding.clone()
    row = dense.get_parameter("weight").detach()[index].clone()
    return row if row.is_meta or bool(row.any()) else None
