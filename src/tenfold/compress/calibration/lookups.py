"""Calls of tables: every index is a position, at which the table meets a vector with a single one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.compress.calibration.calls import Call, Columns, Setting, Squares, argument, seen_by
from tenfold.compress.calibration.one_hot import OneHot
from tenfold.compress.calibration.patches import in_compute

BEHIND = ("gradient_covariance", "fisher_rows")
"""Statistics of the loss gradients."""


@seen_by(nn.Embedding, nn.EmbeddingBag)
@dataclass(frozen=True, eq=False)
class Lookup(Call):
    """A table (v, o) at the indices `x`, (n,): all in one list, without those of the padding row.

    Its outputs are the rows that are looked up. A bag is a table and a pooling behind it: what is seen of it
    is what is seen of an embedding whose rows are then added up, so that the gradient by a row is that of its
    bag times its weight there. Weights of samples count in gradients alone. `y`, (rows, o), is what the layer
    gives, or the gradient by it.
    """

    places: Int[Tensor, " n"]
    """The row of `y` in which each index takes part."""
    weights: Float[Tensor, " n"] | None
    """What its row of the table is multiplied by there; None: 1."""
    entries: int
    """Length of the layer's batch axis."""
    backward: bool = False
    """Whether `y` is the gradient."""

    @classmethod
    def of(
        cls, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor, at: Setting
    ) -> Self:
        """Indices in a list, with what becomes of them."""
        x, bag = argument(0, "input", args, kwargs).detach(), is_bag(layer)
        places = places_of(x, argument(1, "offsets", args, kwargs) if bag else None, bag)
        kept = kept_of(x.reshape(-1), places, layer, y)
        weights = weights_of(layer, argument(2, "per_sample_weights", args, kwargs), places, kept, y.dtype)
        entries = len(y) if y.ndim > 1 else 1
        rows = y.reshape(-1, y.shape[-1])
        return cls(layer, x.reshape(-1)[kept], rows, at, places[kept], weights, entries)

    @staticmethod
    def refusal(layer: nn.Module, statistic: str) -> str:
        """Of maxima, only what the indices say is known."""
        if statistic in BEHIND and getattr(layer, "mode", None) == "max":
            return "gradients by the rows of bags in mode 'max' are not known"
        return ""

    @staticmethod
    def patches_are_inputs(layer: nn.Module) -> bool:
        """An output's weight meets the whole one-hot vector."""
        return True

    @staticmethod
    def rows(layer: nn.Module) -> tuple[int, int, int]:
        """The moment of one-hot vectors is diagonal."""
        return 1, 1, layer.get_parameter("weight").shape[1]

    @property
    def counts(self) -> tuple[int, int]:
        """Indices without padding; each is a position of the output too."""
        return len(self.x), len(self.x)

    def waiting(self, keeps_input: bool) -> Self:
        """All but the output."""
        return replace(self, y=self.y.new_empty(0))

    def given(self, gradient: Tensor) -> Self:
        """With the gradient by what the layer gives."""
        return replace(self, y=gradient.reshape(-1, gradient.shape[-1]), backward=True)

    def inputs(self, thinned: bool = True) -> Iterator[Columns]:
        """One-hot vectors at all positions: to count them takes no time."""
        weight = self.layer.get_parameter("weight")
        yield OneHot(self.x, len(weight), torch.promote_types(weight.dtype, torch.float32))

    def patches(self) -> Iterator[Columns]:
        """The inputs."""
        return self.inputs()

    def outputs(self) -> tuple[Tensor, float]:
        """Rows, or the gradients by them, at the indices that are looked at."""
        slices = self.at.thinning.slices((len(self.x),), 1, self.y.shape[1])
        found = self._by_index(slices[0] if slices else slice(None))
        return found, len(self.x) / len(found)

    def squared_gradients(self) -> Iterator[Squares]:
        """The gradient by a row of a sample is the sum over the indices of the sample that ask for it."""
        size = self.layer.get_parameter("weight").shape[0]
        asked, number = torch.unique(self._samples() * size + self.x, return_inverse=True)
        g = in_compute(self._by_index(slice(None)))
        squared = g.new_zeros(len(asked), g.shape[1]).index_add_(0, number, g).square_()
        yield squared.sum(0), g.new_zeros(size).index_add_(0, asked % size, squared.sum(1))

    def _by_index(self, kept: slice) -> Float[Tensor, "n o"]:
        """What every index gives: a row of the table, or the gradient by it."""
        if not self.backward:
            return self.layer.get_parameter("weight").detach()[self.x[kept]]
        found = self.y[self.places[kept]]
        return found if self.weights is None else found * self.weights[kept].to(found.dtype).unsqueeze(-1)

    def _samples(self) -> Int[Tensor, " n"]:
        """The sample of every index."""
        return self.places // (len(self.y) // self.entries * self.share)

    @property
    def share(self) -> int:
        """Entries of the batch axis that belong to one sample."""
        return self.entries // self.at.samples if self.entries % self.at.samples == 0 else 1


def is_bag(layer: nn.Module) -> bool:
    """Whether rows are pooled behind the table."""
    return isinstance(layer, nn.EmbeddingBag)


def places_of(x: Int[Tensor, "..."], offsets: Int[Tensor, " bags"] | None, bag: bool) -> Int[Tensor, " n"]:
    """The row of the layer's output in which each index takes part.

    >>> places_of(torch.zeros(2, 3), None, True), places_of(torch.zeros(4), torch.tensor([0, 0, 3]), True)
    (tensor([0, 0, 0, 1, 1, 1]), tensor([1, 1, 1, 2]))
    """
    each = bag and offsets is None
    places = torch.arange(len(x) if each else x.numel(), device=x.device)
    if offsets is not None:
        return torch.searchsorted(offsets.to(places.dtype), places, right=True) - 1
    return places.repeat_interleave(x.shape[1]) if each else places


def weights_of(
    layer: nn.Module,
    given: Float[Tensor, "..."] | None,
    places: Int[Tensor, " n"],
    kept: Int[Tensor, " m"],
    dtype: torch.dtype,
) -> Float[Tensor, " m"] | None:
    """What the rows of the kept indices are multiplied by in their bags; None: 1."""
    if is_bag(layer) and layer.mode == "mean":
        wide = torch.promote_types(dtype, torch.float32)
        return torch.bincount(places[kept])[places[kept]].to(wide).reciprocal()
    return None if given is None else given.detach().reshape(-1)[kept]


def kept_of(
    x: Int[Tensor, " n"], places: Int[Tensor, " n"], layer: nn.Module, y: Tensor
) -> Int[Tensor, " m"]:
    """The indices that count: not those of the padding row, which is not trained and kept as it is, nor those
    behind the end of the last bag."""
    kept = places < y[..., 0].numel()
    if layer.padding_idx is not None:
        kept &= x != layer.padding_idx
    return kept.nonzero().squeeze(-1)
