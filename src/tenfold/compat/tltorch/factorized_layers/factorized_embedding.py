"""Embedding layers whose table is a tensorized matrix."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_layers.joint import Index, JointLayer, SubLayer
from tenfold.compat.tltorch.factorized_tensors.tensorized import TensorizedTensor
from tenfold.compat.tltorch.programs import places_for, stored_for
from tenfold.compat.tltorch.utils.tensorize_shape import get_tensorized_shape
from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.core.lookup import Lookup
from tenfold.core.lower_lookup import lower_lookup
from tenfold.nn import RowError
from tenfold.nn.embedding.options import RowOptions
from tenfold.nn.execute import look_up

SubFactorizedEmbedding = SubLayer


class FactorizedEmbedding(JointLayer):
    """The rows of a table that the indices ask for; the table is a tensorized matrix and not made.

    Rows are looked up factor by factor, on the device of the indices. Entries of a new table have deviation
    1 / sqrt(3 num_embeddings), as in TensorLy-Torch, after Yin et al., 'TT-Rec', 2021, arXiv:2101.11714.

    >>> layer = FactorizedEmbedding(1000, 64, rank=8)
    >>> layer(torch.tensor([[3, 999], [0, 3]])).shape
    torch.Size([2, 2, 64])
    """

    padding: Tensor | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        auto_tensorize: bool = True,
        n_tensorized_modes: int = 3,
        tensorized_num_embeddings: Sequence[int] | None = None,
        tensorized_embedding_dim: Sequence[int] | None = None,
        factorization: str = "blocktt",
        rank: Any = 8,
        n_layers: int | tuple[int, ...] = 1,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._set_layers(n_layers)
        sides = tensorized_num_embeddings, tensorized_embedding_dim
        sizes = _tensorized(num_embeddings, embedding_dim, auto_tensorize, n_tensorized_modes, sides)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.tensor_shape = (*self.layers_shape, *sizes)
        self.weight_shape = (*self.layers_shape, num_embeddings, embedding_dim)
        self.factorization = factorization
        self.weight = TensorizedTensor.new(self.tensor_shape, rank, factorization, device=device, dtype=dtype)
        self.rank, self.bias = self.weight.rank, None
        self.options = RowOptions()
        self.register_buffer("padding", None)
        self.reset_parameters()
        network = self._network()
        self.program = lower_lookup(Lookup(network, *self.weight.sides()[-2:]))
        self.places = places_for(network, self.program)

    def reset_parameters(self) -> None:
        """New factors."""
        self.weight.normal_(0, 1 / math.sqrt(3 * self.num_embeddings))

    def forward(self, input: Tensor, indices: Index = 0) -> Tensor:
        """Indices of any shape -> their rows along a new last axis, of table number `indices`.

        Raises:
            RowError: on a CPU, for an index that is negative or too large.
        """
        index, flat = self._index(indices), input.reshape(-1)
        if self._foreign():
            table = self._called(index)
            rows = table.to_matrix() if hasattr(table, "to_matrix") else table
            found = rows.index_select(0, flat)
        else:
            found = self._rows(flat, index)
        if self.options.padding_idx is not None:
            constant = torch.zeros_like(found[:1]) if self.padding is None else self.padding.to(found.dtype)
            found = torch.where((flat == self.options.padding_idx).unsqueeze(-1), constant, found)
        found = self.options.act(found, flat, self.num_embeddings)
        return found.reshape(*input.shape, self.embedding_dim)

    def _rows(self, flat: Tensor, index: tuple[int, ...]) -> Tensor:
        stored = stored_for(self._factors(index), self.places)
        try:
            return look_up(self.program, flat, stored)
        except IndexError as error:
            raise RowError(
                f"an index is out of range: the table has {self.num_embeddings} rows.",
                f"Give indices from 0 to {self.num_embeddings - 1}.",
            ) from error

    def get_embedding(self, indices: Index) -> nn.Module:
        """One of several tables."""
        return self[indices]

    @classmethod
    def from_embedding(
        cls,
        embedding_layer: nn.Embedding,
        rank: Any = 8,
        factorization: str = "blocktt",
        n_tensorized_modes: int = 2,
        decompose_weights: bool = True,
        auto_tensorize: bool = True,
        decomposition_kwargs: Mapping[str, Any] | None = None,
        *,
        tensorized_num_embeddings: Sequence[int] | None = None,
        tensorized_embedding_dim: Sequence[int] | None = None,
    ) -> Self:
        """The layer whose table is fitted to that of a dense one, or random with `decompose_weights=False`.

        Settings, device and dtype are taken over. The row of `padding_idx` is kept apart, and stays exact.
        """
        made = cls._like(
            [embedding_layer],
            (auto_tensorize, n_tensorized_modes, tensorized_num_embeddings, tensorized_embedding_dim),
            factorization,
            rank,
        )
        if decompose_weights:
            made.weight.init_from_matrix(embedding_layer.weight.detach(), **(decomposition_kwargs or {}))
        made.options = RowOptions.of(embedding_layer, made.num_embeddings)
        if made.options.padding_idx is not None:
            row = embedding_layer.weight.detach()[made.options.padding_idx].clone()
            made.padding = row if bool(row.any()) else None
        return made.train(embedding_layer.training)

    @classmethod
    def from_embedding_list(
        cls,
        embedding_layer_list: Sequence[nn.Embedding],
        rank: Any = 8,
        factorization: str = "blocktt",
        n_tensorized_modes: int = 2,
        decompose_weights: bool = True,
        auto_tensorize: bool = True,
        decomposition_kwargs: Mapping[str, Any] | None = None,
        *,
        tensorized_num_embeddings: Sequence[int] | None = None,
        tensorized_embedding_dim: Sequence[int] | None = None,
    ) -> Self:
        """Several tables of one shape, fitted by one tensor; `get_embedding(i)` is one of them."""
        for layer in embedding_layer_list:
            if RowOptions.of(layer, layer.num_embeddings) != RowOptions():
                raise OptionError(
                    f"{layer} has settings that tables with shared factors cannot have.",
                    "Use from_embedding for each, or a plain nn.Embedding.",
                )
        made = cls._like(
            embedding_layer_list,
            (auto_tensorize, n_tensorized_modes, tensorized_num_embeddings, tensorized_embedding_dim),
            factorization,
            rank,
        )
        if decompose_weights:
            stack = torch.stack([layer.weight.detach() for layer in embedding_layer_list])
            made.weight.init_from_matrix(stack.reshape(made.weight.shape), **(decomposition_kwargs or {}))
        return made

    @classmethod
    def _like(cls, layers: Sequence[Any], shapes: tuple[Any, ...], factorization: str, rank: Any) -> Self:
        for layer in layers:
            if not isinstance(layer, nn.Embedding):
                raise UnsupportedError(f"a {type(layer).__name__} came.", "Give an nn.Embedding.")
            if layer.sparse:
                raise OptionError("sparse=True came, but rows share their factors.", "Take False.")
        found = {tuple(layer.weight.shape) for layer in layers}
        if len(found) != 1:
            raise ShapeError(f"tables of the shapes {sorted(found)} came.", "Give tables of one shape.")
        weight = layers[0].weight
        like = (weight.device, weight.dtype)
        rows, columns = weight.shape
        auto, order, first, second = shapes
        return cls(rows, columns, auto, order, first, second, factorization, rank, len(layers), *like)

    def extra_repr(self) -> str:
        """Sizes and settings."""
        shown = {k: v for k, v in vars(self.options).items() if v != getattr(RowOptions(), k)}
        more = [f"n_layers={self.n_layers}", *(f"{k}={v}" for k, v in shown.items())]
        return ", ".join([f"{self.num_embeddings}, {self.embedding_dim}", *more])


def _tensorized(
    rows: int, columns: int, auto: bool, order: int, given: tuple[Sequence[int] | None, Sequence[int] | None]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    first, second = given
    if auto:
        if first is not None or second is not None:
            raise OptionError(
                "auto_tensorize=True came with tensorized sizes.", "Give auto_tensorize=False, or no sizes."
            )
        return get_tensorized_shape(rows, columns, order)
    if first is None or second is None:
        raise OptionError("auto_tensorize=False came without tensorized sizes.", "Give both.")
    if (math.prod(first), math.prod(second)) != (rows, columns):
        raise ShapeError(
            f"the sizes {tuple(first)} and {tuple(second)} came for a table ({rows}, {columns}).",
            "Give sizes whose products are those.",
        )
    return tuple(first), tuple(second)
