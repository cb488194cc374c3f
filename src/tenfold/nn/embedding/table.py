"""What factorized embedding layers share: a table held as factors, of which rows are looked up."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.core.errors import LayoutError, OptionError, TenfoldError
from tenfold.core.layout import Layout
from tenfold.core.lookup import Lookup
from tenfold.core.lower_lookup import lower_lookup
from tenfold.core.network import Axes
from tenfold.formats import Format, Ranks, formats
from tenfold.nn.base import FactorizedLayer, Role, check_roles
from tenfold.nn.embedding.bags import Bags
from tenfold.nn.embedding.options import RowOptions
from tenfold.nn.embedding.vocabulary import table_layout
from tenfold.nn.execute import look_up
from tenfold.nn.moments import scaled_to
from tenfold.nn.tensor.factorized import FactorizedTensor

ROWS = 256


class RowError(TenfoldError, IndexError):
    """An index that the table has not got."""


class FactorizedTable(FactorizedLayer):
    """A layer that looks rows up in a table which is held as factors.

    The layout names the axes of the rows "v" and those of the columns "o". An index is split into digits, one
    for each axis of the rows; every factor gives what its own digits ask for, and these parts are contracted
    for all indices at once. The table is made only where that is cheaper: for many more indices than rows.
    """

    options: RowOptions
    num_embeddings: int
    embedding_dim: int

    def _keep(
        self,
        value: Format,
        layout: Layout,
        rows: int,
        options: RowOptions,
        counts: tuple[int, int | None],
    ) -> None:
        """Set all that does not depend on the layer; `counts` are the indices and bags to plan for."""
        super().__init__()
        check_roles(layout, [(Role.INDEX,), (Role.OUT,)], "a table")
        if layout.mode_shape != value.shape:
            raise LayoutError(
                f'layout "{layout}" gives modes {layout.mode_shape}, the factors {value.shape}.'
            )
        self.stored_rows, self.embedding_dim = layout.shape
        if self.stored_rows < rows:
            raise LayoutError(f'layout "{layout}" has {self.stored_rows} rows, but the table {rows}.')
        self.num_embeddings, self.layout, self.options = rows, layout, options
        vocabulary, outputs = layout.weight
        if options.sparse and (problem := _split(layout)):
            remedy = 'Keep it in one axis, such as "v o -> v o", or take sparse=False.'
            raise OptionError(f"{problem}.", remedy)
        network = value.network.refined(layout.mode_groups)
        self.program = lower_lookup(
            Lookup(network, vocabulary, outputs, counts[0], counts[1], leaves=options.sparse)
        )
        self.weight = FactorizedTensor(value, layout, self.program)
        self.bias = None

    @property
    def padding_idx(self) -> int | None:
        """The index whose row is not trained."""
        return self.options.padding_idx

    @property
    def max_norm(self) -> float | None:
        """The norm to which longer rows are scaled down."""
        return self.options.max_norm

    @property
    def norm_type(self) -> float:
        """The p of the p-norm."""
        return self.options.norm_type

    @property
    def scale_grad_by_freq(self) -> bool:
        """Whether the gradient of a row is divided by how often its index is in the batch."""
        return self.options.scale_grad_by_freq

    @property
    def sparse(self) -> bool:
        """Whether the factors that carry the vocabulary have sparse gradients."""
        return self.options.sparse

    @staticmethod
    def pattern(dense: nn.Module) -> tuple[Axes, ...]:
        """Vocabulary, outputs."""
        return ("v",), ("o",)

    @classmethod
    def bound(cls, dense: nn.Module, layout: str) -> Layout:
        """The layout with all sizes; it may have a few more rows than the table of `dense`."""
        return table_layout(layout, *dense.get_parameter("weight").shape)

    @classmethod
    def tensor_of(cls, dense: nn.Module, layout: Layout) -> Tensor:
        """The table of `dense` as the tensor that is factored; rows that it has not got are zero."""
        table = dense.get_parameter("weight").detach()
        tensor: Tensor = layout.to_modes(nn.functional.pad(table, (0, 0, 0, layout.shape[0] - len(table))))
        return tensor

    @classmethod
    def refusal(cls, dense: nn.Module, layout: Layout) -> str:
        """Whether sparse gradients are asked for, of a vocabulary that is split."""
        return _split(layout) if dense.sparse else ""

    @classmethod
    def from_embedding(
        cls, dense: nn.Module, method: Any, ranks: Ranks | None = None, layout: str = "v o -> v o"
    ) -> Self:
        """Decompose a dense layer: `from_embedding(dense, TruncatedSVD(), 32)`.

        Axes of the layout without a size get sizes as equal as can be; see `table_layout`.
        """
        return cls.decomposed(dense, method, ranks, layout)

    def dense_weight(self) -> Float[Tensor, "num dim"]:
        """The table, without the rows that no index asks for; differentiable in the factors."""
        return self.weight.dense()[: self.num_embeddings]

    @abstractmethod
    def to_dense(self) -> nn.Module:
        """The dense layer that computes the same."""

    def rows(self, indices: Int[Tensor, " n"], zeroed: Tensor | None, bags: Bags | None = None) -> Tensor:
        """The rows at the indices (n, dim), or their sums by bag; see `look_up`.

        Raises:
            RowError: on a CPU, for an index that is negative or too large. Other devices stop with an error
                of their own, as with dense layers.
        """
        if self.stored_rows > self.num_embeddings:
            indices = torch.where(indices < self.num_embeddings, indices, self.stored_rows)
        try:
            return look_up(self.program, indices, self.weight.factors(), zeroed, bags, self.sparse)
        except IndexError as error:
            raise RowError(
                f"an index is out of range: the table has {self.num_embeddings} rows.",
                f"Give indices from 0 to {self.num_embeddings - 1}.",
            ) from error

    def padded(self, indices: Int[Tensor, " n"]) -> Tensor | None:
        """Which indices are the padding; None where there is none."""
        return None if self.padding_idx is None else indices == self.padding_idx

    def extra_repr(self) -> str:
        """Sizes and settings, as torch prints them."""
        o, default = self.options, RowOptions()
        shown = {k: v for k, v in vars(o).items() if v != getattr(default, k)}
        return ", ".join(
            [f"{self.num_embeddings}, {self.embedding_dim}", *(f"{k}={v}" for k, v in shown.items())]
        )


def _split(layout: Layout) -> str:
    """Why sparse gradients cannot be had; empty if they can."""
    if len(layout.weight[0]) == 1:
        return ""
    return (
        f'sparse=True cannot be served: layout "{layout}" splits the vocabulary, '
        "so that every index needs rows that others need too"
    )


def drawn(
    layout: Layout,
    rows: int,
    format: str,
    rank: Ranks | None,
    params: int | None,
    std: float,
    like: Tensor,
) -> Format:
    """Random factors such that the entries of the table have deviation `std`.

    A fraction is of the elements of the table itself, without rows that pad it.
    """
    if (rank is None) == (params is None):
        raise OptionError(f"rank={rank} and params={params} came.", "Give one of the two.")
    kind = formats[format]
    if isinstance(rank, float) and 0 < rank <= 1:
        params = int(rank * rows * layout.shape[1])
    ranks: Ranks | Mapping[str, int] | None = (
        rank if params is None else kind.ranks_within(layout.mode_shape, params)
    )
    assert ranks is not None
    return scaled_to(kind.random(layout.mode_shape, ranks, like=like, std=std), std)


def planned_counts(example: Sequence[int] | None) -> int:
    """The number of indices to plan for."""
    return ROWS if example is None else max(1, math.prod(example))
