"""Factorized embedding bag."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.layout import Layout
from tenfold.formats import Format, Ranks
from tenfold.nn.base import replaces
from tenfold.nn.embedding.bags import Bags, check_starts
from tenfold.nn.embedding.options import RowOptions, counted
from tenfold.nn.embedding.table import ROWS, FactorizedTable, drawn
from tenfold.nn.embedding.vocabulary import table_layout

MODES = ("sum", "mean", "max")
BAG = 8


@dataclass(frozen=True)
class BagOptions:
    """The settings of `nn.EmbeddingBag` for bags; names and meaning are torch's."""

    mode: str = "mean"
    include_last_offset: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise OptionError(f"mode came as {self.mode!r}.", f"Choose one of {', '.join(MODES)}.")

    def check(self, rows: RowOptions) -> None:
        """Raise OptionError for a setting of rows that torch does not serve either in this mode."""
        if self.mode == "max" and (rows.sparse or rows.scale_grad_by_freq):
            name = "sparse" if rows.sparse else "scale_grad_by_freq"
            raise OptionError(
                f"{name}=True came with mode='max'.", "torch serves it for sums and means only."
            )


@replaces(nn.EmbeddingBag)
class FactorizedEmbeddingBag(FactorizedTable):
    """The sum, mean or maximum of the rows of each bag of indices; the table is held as factors.

    The settings are those of `nn.EmbeddingBag`; of `max_norm` and `sparse` see `FactorizedEmbedding`. For
    sums and means the rows are added up as soon as each index is looked up, and only sums go through the
    steps that are left: of a table of low rank the rows of the left factor are added up.

    `scale_grad_by_freq` divides by how often an index is in the batch, as torch documents it and its
    embedding does it; torch's own bag (2.13, on a CPU) divides by the count of another index.

    >>> layer = FactorizedEmbeddingBag(1000, 64, rank=8, mode="sum")
    >>> layer(torch.tensor([[2, 7, 2]])).shape, layer.program.kinds
    (torch.Size([1, 64]), ('gather and bag', 'merge'))
    >>> layer(torch.tensor([2, 7, 2, 5]), torch.tensor([0, 3])).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
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
        """Random factors, as of `FactorizedEmbedding`; `example` is the shape (bags, length) of an input."""
        like = torch.empty((), device=device, dtype=dtype)
        options = RowOptions(
            counted(padding_idx, num_embeddings), max_norm, norm_type, scale_grad_by_freq, sparse
        )
        bag = BagOptions(mode, include_last_offset)
        bag.check(options)
        bound = table_layout(layout, num_embeddings, embedding_dim, padded_to)
        value = drawn(bound, num_embeddings, format, rank, params, std, like)
        self._build(value, bound, num_embeddings, options, bag, example)

    def _build(
        self,
        value: Format,
        layout: Layout,
        rows: int,
        options: RowOptions,
        bag: BagOptions,
        example: Sequence[int] | None,
    ) -> None:
        bags, length = _bags_of(example)
        late = bag.mode == "max" or options.acts_on_rows
        self._keep(value, layout, rows, options, (bags * length, None if late else bags))
        self.planned_bags, self.bag, self.late = (bags, length), bag, late

    @property
    def mode(self) -> str:
        """How the rows of a bag become one."""
        return self.bag.mode

    @property
    def include_last_offset(self) -> bool:
        """Whether the offsets end with the end of the last bag."""
        return self.bag.include_last_offset

    @classmethod
    def from_dense(
        cls, dense: nn.Module, value: Format, layout: Layout, example: Sequence[int] | None = None
    ) -> Self:
        """The layer with the settings of `dense` and the table `value`."""
        layer = cls.__new__(cls)
        rows: int = dense.num_embeddings  # type: ignore[assignment]
        options = RowOptions.of(dense, rows)
        bag = BagOptions(dense.mode, dense.include_last_offset)  # type: ignore[arg-type]
        bag.check(options)
        layer._build(value, layout, rows, options, bag, example)
        return layer.train(dense.training)

    def to_dense(self) -> nn.EmbeddingBag:
        """The `nn.EmbeddingBag` that computes the same."""
        o, weight = self.options, self.dense_weight().detach().contiguous()
        dense = nn.EmbeddingBag(
            len(weight), self.embedding_dim, o.max_norm, o.norm_type, o.scale_grad_by_freq, self.mode,
            o.sparse, weight, self.include_last_offset, o.padding_idx,
        )  # fmt: skip
        dense.weight.requires_grad_(self.weight.requires_grad)
        return dense.train(self.training)

    def planned(self) -> tuple[int, ...]:
        """(bags, indices in each)."""
        return self.planned_bags

    def forward(
        self,
        input: Int[Tensor, "..."],
        offsets: Int[Tensor, " bags"] | None = None,
        per_sample_weights: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "bags dim"]:
        """Indices (bags, length), or one after the other with the `offsets` where bags begin.

        Raises:
            ShapeError: for offsets where there should be none, or none where there should be; on a CPU, for
                offsets that do not begin with 0, fall, or go beyond the indices.
            OptionError: for weights in a mode other than "sum".
            RowError: as `rows`.
        """
        self._check(input, offsets, per_sample_weights)
        weights = None if per_sample_weights is None else per_sample_weights.reshape(-1)
        lengths = (input.shape[0], input.shape[1]) if offsets is None else None
        bags = Bags(lengths, offsets, self.include_last_offset, weights)
        indices = input.reshape(-1)
        padded = self.padded(indices)
        if not self.late:
            found = self.rows(indices, padded, bags)
        else:
            rows = self.options.act(self.rows(indices, padded), indices, self.num_embeddings)
            if self.mode == "max":
                return bags.largest(rows, padded)
            found = bags.sums(rows)
        return (
            found / bags.counts(indices.shape[0], padded, found).clamp_min(1)
            if self.mode == "mean"
            else found
        )

    def _check(self, x: Tensor, offsets: Tensor | None, weights: Tensor | None) -> None:
        if x.ndim not in (1, 2) or (x.ndim == 1) != (offsets is not None):
            raise ShapeError(
                f"the input is {tuple(x.shape)}, with{'out' if offsets is None else ''} offsets.",
                "Give (bags, length) without, or (indices,) with offsets.",
            )
        if offsets is not None:
            check_starts(offsets, len(x))
        if weights is not None and self.mode != "sum":
            raise OptionError(
                f"per_sample_weights came in mode {self.mode!r}.", 'They are defined for mode="sum" only.'
            )
        if weights is not None and weights.shape != x.shape:
            raise ShapeError(
                f"per_sample_weights are {tuple(weights.shape)}, the input is {tuple(x.shape)}.",
                "Give a weight for each index.",
            )

    def extra_repr(self) -> str:
        """Sizes and settings, as torch prints them."""
        last = ", include_last_offset=True" if self.include_last_offset else ""
        return f"{super().extra_repr()}, mode={self.mode!r}{last}"


def _bags_of(example: Sequence[int] | None) -> tuple[int, int]:
    """Bags and indices in each; of indices one after the other, as many as usual."""
    if example is None:
        return ROWS // BAG, BAG
    if len(example) == 2:
        return max(1, int(example[0])), max(1, int(example[1]))
    return max(1, int(example[0]) // BAG), BAG
