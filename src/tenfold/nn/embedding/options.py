"""The settings that embedding layers share, and what they do to the rows that are looked up."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.core.errors import OptionError


@dataclass(frozen=True)
class RowOptions:
    """The settings of `nn.Embedding` and `nn.EmbeddingBag` for single rows; names and meaning are torch's."""

    padding_idx: int | None = None
    max_norm: float | None = None
    norm_type: float = 2.0
    scale_grad_by_freq: bool = False
    sparse: bool = False

    def __post_init__(self) -> None:
        if self.max_norm is not None and not self.max_norm >= 0:
            raise OptionError(f"max_norm came as {self.max_norm}.", "Give 0 or more, or None.")
        if not self.norm_type > 0:
            raise OptionError(f"norm_type came as {self.norm_type}.", "Give a number above 0, such as 2.")

    @staticmethod
    def of(layer: Any, rows: int) -> "RowOptions":
        """The settings of a dense or factorized layer with so many rows."""
        return RowOptions(
            counted(layer.padding_idx, rows),
            layer.max_norm,
            layer.norm_type,
            layer.scale_grad_by_freq,
            layer.sparse,
        )

    @property
    def acts_on_rows(self) -> bool:
        """Whether every row has to be there by itself before rows are added up."""
        return self.max_norm is not None or self.scale_grad_by_freq

    def act(self, rows: Float[Tensor, "n dim"], indices: Int[Tensor, " n"], count: int) -> Tensor:
        """The rows with the norm that they may have, and with the gradient that they send back.

        As in the dense layer, the renormalisation is no part of the graph.
        """
        if self.max_norm is None and not self.scale_grad_by_freq:
            return rows
        values = rows.detach()
        if self.max_norm is not None:
            values = within_norm(values, self.max_norm, self.norm_type)
        if not torch.is_grad_enabled():
            return values
        change = rows - rows.detach()  # 0, with the gradient of the rows
        if self.scale_grad_by_freq:
            change = change / frequencies(indices, count).to(rows.dtype).unsqueeze(-1)
        return values + change


def counted(index: int | None, rows: int) -> int | None:
    """An index from the end counted from the start.

    Raises:
        OptionError: if there is no such row.
    """
    if index is None or 0 <= index < rows:
        return index
    if -rows <= index < 0:
        return index + rows
    raise OptionError(
        f"padding_idx came as {index}, for {rows} rows.", f"Give one from {-rows} to {rows - 1}."
    )


def within_norm(rows: Float[Tensor, "n dim"], norm: float, p: float) -> Float[Tensor, "n dim"]:
    """Rows whose p-norm is above `norm` scaled down to it, with the guard against 0 that torch has.

    >>> within_norm(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0, 2.0)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    norms = torch.linalg.vector_norm(rows, p, dim=-1, keepdim=True)
    scales = norm / (norms + 1e-7)
    return torch.where(norms > norm, rows * scales, rows)


def frequencies(indices: Int[Tensor, " n"], count: int) -> Int[Tensor, " n"]:
    """How often each of the indices, which are below `count`, is among them.

    >>> frequencies(torch.tensor([3, 1, 3]), 5)
    tensor([2, 1, 2])
    """
    ones = torch.ones_like(indices)
    return torch.zeros(count, dtype=ones.dtype, device=ones.device).index_add(0, indices, ones)[indices]
