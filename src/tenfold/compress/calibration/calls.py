"""One call of a layer as its weight sees it: what it meets, and what comes of that."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from tenfold.compress.calibration.one_hot import OneHot
from tenfold.compress.calibration.patches import (
    channel_matrix,
    chunks,
    in_compute,
    order_of,
    patch_bytes,
    patch_matrices,
    patch_width,
    patches_are_inputs,
    positions_of,
    windows,
)
from tenfold.compress.calibration.thinning import Thinning

Columns = Tensor | OneHot
"""(entries, positions), or a stack of such, one for each group."""

Squares = tuple[Float[Tensor, " o"], Float[Tensor, " k"]]
"""Squared gradients of a weight, summed over its inputs and over its outputs."""


@dataclass(frozen=True)
class Setting:
    """What all calls of a batch share: its samples, memory for a piece, which positions are looked at."""

    samples: int
    max_bytes: int
    thinning: Thinning


@dataclass(frozen=True, eq=False)
class Call(ABC):
    """One call of a layer: its input, and its output or the loss gradient by it; each with a batch axis.

    A concrete class says how the layers of one family let their weight meet the input.
    """

    layer: nn.Module
    x: Tensor
    y: Tensor
    at: Setting

    @classmethod
    @abstractmethod
    def of(
        cls, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor, at: Setting
    ) -> Self:
        """The call with these arguments, which gave `y`."""

    @staticmethod
    def refusal(layer: nn.Module, statistic: str) -> str:
        """Why the statistic cannot be had of such a layer, empty if it can."""
        return ""

    @staticmethod
    @abstractmethod
    def patches_are_inputs(layer: nn.Module) -> bool:
        """Whether what an output's weight meets is the channels of one input position."""

    @staticmethod
    @abstractmethod
    def rows(layer: nn.Module) -> tuple[int, int, int]:
        """Rows of the moments of inputs, of patches and of outputs; 1 where the moment is diagonal."""

    @property
    def order(self) -> int:
        """Spatial axes."""
        return 0

    @property
    def uses(self) -> float:
        """How often the weight is used for one position of the output."""
        return 1.0

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return getattr(self.layer, "groups", 1)

    @property
    def share(self) -> int:
        """Entries of the batch axis that belong to one sample."""
        return len(self.y) // self.at.samples if len(self.y) % self.at.samples == 0 else 1

    @property
    def counts(self) -> tuple[int, int]:
        """Positions of the input and of the output."""
        axis = 1 if self.order else -1
        return self.x.numel() // self.x.shape[axis], self.y.numel() // self.y.shape[axis]

    def waiting(self, keeps_input: bool) -> Self:
        """What must be kept until the gradient comes; a view would keep the whole."""
        x = self.x.detach() if keeps_input else self.x.new_empty(0)
        return replace(self, x=x, y=self.y.new_empty(0))

    def given(self, gradient: Tensor) -> Self:
        """The call with the loss gradient by its output."""
        return replace(self, y=batched(gradient, self.order))

    def inputs(self, thinned: bool = True) -> Iterator[Columns]:
        """Channels of the input × positions, in pieces."""
        kept = self._thinned(self.x, self.groups) if thinned else self.x
        return (channel_matrix(x, self.order, self.groups) for x in chunks(kept, self.at.max_bytes))

    @abstractmethod
    def patches(self) -> Iterator[Columns]:
        """Entries that an output's weight meets × positions, in pieces."""

    def outputs(self) -> tuple[Tensor, float]:
        """The outputs that are looked at, and how many outputs stand behind each of them."""
        kept = self._thinned(self.y)
        return kept, self.y.numel() / kept.numel()

    @abstractmethod
    def squared_gradients(self) -> Iterator[Squares]:
        """Of the weight, sample by sample, from inputs and output gradients; in pieces to add up."""

    def _thinned(self, x: Tensor, groups: int = 1) -> Tensor:
        axis = 1 if self.order else -1
        return self.at.thinning(x, axis, x.shape[axis] // groups)


calls: dict[type[nn.Module], type[Call]] = {}
"""Layer type -> how its weight meets the input."""


def seen_by(*layers: type[nn.Module]) -> Callable[[type[Call]], type[Call]]:
    """Class decorator: calls of these layers are such."""

    def add(cls: type[Call]) -> type[Call]:
        calls.update(dict.fromkeys(layers, cls))
        return cls

    return add


def batched(x: Tensor, order: int) -> Tensor:
    """With a batch axis, which layers may be called without."""
    return x.unsqueeze(0) if x.ndim == order + 1 else x


def argument(place: int, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """An argument of a layer, given by its place or by its name; None where it is not given.

    >>> argument(0, "input", (3,), {}), argument(1, "offsets", (3,), {"offsets": 5})
    (3, 5)
    """
    return args[place] if place < len(args) else kwargs.get(name)


@seen_by(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
class PatchCall(Call):
    """The weight meets a patch of inputs, once for each position of the output."""

    @classmethod
    def of(
        cls, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor, at: Setting
    ) -> Self:
        """Inputs and outputs as they are."""
        x, order = argument(0, "input", args, kwargs), order_of(layer) or 0
        return cls(layer, batched(x, order), batched(y, order), at)

    @staticmethod
    def patches_are_inputs(layer: nn.Module) -> bool:
        """Of linear layers and convolutions that look at one position."""
        return patches_are_inputs(layer)

    @staticmethod
    def rows(layer: nn.Module) -> tuple[int, int, int]:
        """Inputs of a group, these times taps, outputs of all groups."""
        outputs, inputs = layer.get_parameter("weight").shape[:2]
        return inputs, patch_width(layer), outputs

    @property
    def order(self) -> int:
        """Spatial axes."""
        return order_of(self.layer) or 0

    def patches(self) -> Iterator[Columns]:
        """Patch entries × positions of the output."""
        outputs = positions_of(self.x, self.layer)
        kept = self.at.thinning.slices(outputs, len(self.x), patch_width(self.layer))
        return patch_matrices(self.x, self.layer, self.at.max_bytes, kept)

    def squared_gradients(self) -> Iterator[Squares]:
        """The gradient of a sample n is Σ_t g_nt p_ntᵀ over its positions t."""
        pairs = self._linear_pairs() if self.order == 0 else self._conv_pairs()
        for g, p in pairs:
            rows, columns = squared_sums(g, p)
            yield rows.flatten(), columns

    def _linear_pairs(self) -> "Pairs":
        """Gradients by the outputs and inputs of some samples at a time."""
        share = self.share
        x = self.x.detach().reshape(len(self.x) // share, 1, -1, self.x.shape[-1])
        g = self.y.detach().reshape(len(self.y) // share, 1, -1, self.y.shape[-1])
        each = 4 * (x[:1].numel() + g[:1].numel()) + 8 * self.layer.get_parameter("weight").numel()
        n = max(1, self.at.max_bytes // each)
        for a, b in zip(g.split(n), x.split(n), strict=True):
            yield in_compute(a).mT, in_compute(b).mT

    def _conv_pairs(self) -> "Pairs":
        """Gradients by the outputs and patches of some samples at a time."""
        share = self.share
        each = share * patch_bytes(self.x, self.layer) + 8 * self.layer.get_parameter("weight").numel()
        n = share * max(1, self.at.max_bytes // each)
        for g, x in zip(self.y.split(n), self.x.split(n), strict=True):
            patches = taps_last(windows(in_compute(x), self.layer), self.order)
            yield by_sample(in_compute(g), self.groups, share), by_sample(patches, self.groups, share)


Pairs = Iterator[tuple[Float[Tensor, "n groups o t"], Float[Tensor, "n groups k t"]]]


def taps_last(view: Float[Tensor, "b c *at_taps"], order: int) -> Float[Tensor, "b k *at"]:
    """Windows (batch, channels, *positions, *taps) as patches (batch, channels · taps, *positions)."""
    taps = range(2 + order, 2 + 2 * order)
    return view.permute(0, 1, *taps, *range(2, 2 + order)).flatten(1, 1 + order)


def by_sample(x: Tensor, groups: int, share: int) -> Float[Tensor, "n groups c t"]:
    """(entries, channels, *positions) with the entries of a sample among its positions."""
    flat = x.reshape(len(x) // share, share, groups, x.shape[1] // groups, -1)
    return flat.permute(0, 2, 3, 1, 4).flatten(-2)


def squared_sums(
    g: Float[Tensor, "n groups o t"], p: Float[Tensor, "n groups k t"]
) -> tuple[Float[Tensor, "groups o"], Float[Tensor, " k"]]:
    """Squares of the entries of all g pᵀ, summed over the columns and over the rows.

    With few positions through the Gram matrices, ‖(g pᵀ)_i‖² = g_iᵀ (pᵀ p) g_i, so that no g pᵀ is made.
    """
    (o, t), k = g.shape[-2:], p.shape[-2]
    if 2 * t * (o + k) < o * k:
        rows = ((g @ (p.mT @ p)) * g).sum((0, -1))
        return rows, ((p @ (g.mT @ g)) * p).sum((0, 1, -1))
    squared = (g @ p.mT).square_()
    return squared.sum((0, -1)), squared.sum((0, 1, 2))
