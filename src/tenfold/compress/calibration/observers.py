"""Running sums of what a layer sees, one class a statistic."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from tenfold.compress.calibration.patches import (
    channel_matrix,
    chunks,
    in_compute,
    order_of,
    patch_bytes,
    patch_matrices,
    patch_width,
    positions_of,
    windows,
)
from tenfold.compress.calibration.sums import Sums
from tenfold.compress.calibration.thinning import ALL, Thinning
from tenfold.core.registry import Registry


@dataclass(frozen=True)
class Call:
    """One call of a layer: its input, and its output or the loss gradient by it; each with a batch axis."""

    layer: nn.Module
    x: Tensor
    y: Tensor
    samples: int
    max_bytes: int
    thinning: Thinning = ALL

    @property
    def order(self) -> int:
        """Spatial axes."""
        return order_of(self.layer) or 0

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return getattr(self.layer, "groups", 1)

    def thinned(self, x: Tensor, groups: int = 1) -> Tensor:
        """The input, the output or its gradient at the positions that are looked at."""
        axis = 1 if self.order else -1
        return self.thinning(x, axis, x.shape[axis] // groups)


class Observer(ABC):
    """Base class; a concrete one sees every call of a site and gives means at the end."""

    sees: ClassVar[str]
    """What it reads, for messages: "inputs", "outputs" or "loss gradients"."""
    backward: ClassVar[bool] = False
    """Whether the gradients by the outputs come in place of the outputs."""
    keeps_input: ClassVar[bool] = False
    """Whether the inputs are read when the gradients come."""

    def __init__(self) -> None:
        self.sums = Sums()
        self.count = 0

    @abstractmethod
    def see(self, call: Call) -> None:
        """Add one call."""

    def result(self, samples: int) -> dict[str, Tensor]:
        """Statistics by name; of gradients that never came, none."""
        return self.sums.mean(samples if self.backward else self.count)

    @staticmethod
    def refusal(layer: nn.Module, max_patch: int) -> str:
        """Why this cannot be collected for the layer, empty if it can."""
        return ""


observers: Registry[type[Observer]] = Registry("statistic")
"""The registered statistics: what `collect` takes as `want`."""


class Moment(Observer):
    """First and second moment of the columns of matrices."""

    names: ClassVar[tuple[str, str]]

    @abstractmethod
    def matrices(self, call: Call) -> Iterator[Tensor]:
        """(entries, positions), or a stack of such."""

    def see(self, call: Call) -> None:
        """One matrix product for each piece."""
        first, second = self.names
        for matrix in self.matrices(call):
            self.sums.add(first, matrix.sum(-1))
            self.sums.add_gram(second, matrix)
            self.count += matrix.shape[-1]


@observers.register("input_covariance")
class InputCovariance(Moment):
    """Channels of the input, over all its positions."""

    sees, names = "inputs", ("input_mean", "input_covariance")

    def matrices(self, call: Call) -> Iterator[Tensor]:
        """Channels × positions."""
        kept = call.thinned(call.x, call.groups)
        return (channel_matrix(x, call.order, call.groups) for x in chunks(kept, call.max_bytes))


@observers.register("patch_moment")
class PatchMoment(Moment):
    """Patches of the input, as the weight's axes (i, *taps) see them."""

    sees, names = "inputs", ("patch_mean", "patch_moment")

    def matrices(self, call: Call) -> Iterator[Tensor]:
        """Patch entries × positions of the output."""
        outputs = positions_of(call.x, call.layer)
        kept = call.thinning.slices(outputs, len(call.x), patch_width(call.layer))
        return patch_matrices(call.x, call.layer, call.max_bytes, kept)

    @staticmethod
    def refusal(layer: nn.Module, max_patch: int) -> str:
        """Whether the patches are wider than `max_patch`."""
        width = patch_width(layer)
        return (
            f"its patches have {width} entries, more than max_patch={max_patch}" if width > max_patch else ""
        )


@observers.register("output_covariance")
class OutputCovariance(Moment):
    """Channels of the output."""

    sees, names = "outputs", ("output_mean", "output_covariance")

    def matrices(self, call: Call) -> Iterator[Tensor]:
        """Channels × positions."""
        return (channel_matrix(y, call.order) for y in chunks(call.thinned(call.y), call.max_bytes))


@observers.register("input_absolute")
class InputAbsolute(Observer):
    """Mean absolute value of every input channel."""

    sees = "inputs"

    def see(self, call: Call) -> None:
        """Sum over positions."""
        for x in chunks(call.x, call.max_bytes):
            matrix = channel_matrix(x, call.order, call.groups)
            self.sums.add("input_absolute", matrix.abs().sum(-1))
            self.count += matrix.shape[-1]


@observers.register("gradient_covariance")
class GradientCovariance(Observer):
    """Second moment of the loss gradients, summed over positions, mean over samples."""

    sees, backward = "loss gradients", True

    def see(self, call: Call) -> None:
        """One matrix product for each piece; positions that are looked at stand for all."""
        kept = call.thinned(call.y)
        for g in chunks(kept, call.max_bytes):
            matrix = channel_matrix(g, call.order)
            self.sums.add_gram("gradient_covariance", matrix, call.y.numel() / kept.numel())


@observers.register("fisher_rows")
class Fisher(Observer):
    """Squared gradients of the weight, sample by sample, summed over its rows and over its columns.

    A sample owns an equal, connected share of the layer's batch axis (windows of attention follow one another
    by image). Where its length is no multiple of the samples (experts get tokens of all), every entry counts
    as a sample of its own, and so does every call of a layer that is called several times.
    """

    sees, backward, keeps_input = "loss gradients", True, True

    def see(self, call: Call) -> None:
        """The gradient of a sample n is Σ_t g_nt p_ntᵀ over its positions t."""
        share = len(call.y) // call.samples if len(call.y) % call.samples == 0 else 1
        for g, p in linear_pairs(call, share) if call.order == 0 else conv_pairs(call, share):
            rows, columns = squared_sums(g, p)
            self.sums.add("fisher_rows", rows.flatten())
            self.sums.add("fisher_columns", columns)


Pairs = Iterator[tuple[Float[Tensor, "n groups o t"], Float[Tensor, "n groups k t"]]]


def linear_pairs(call: Call, share: int) -> Pairs:
    """Gradients by the outputs and inputs of some samples at a time."""
    x = call.x.detach().reshape(len(call.x) // share, 1, -1, call.x.shape[-1])
    g = call.y.detach().reshape(len(call.y) // share, 1, -1, call.y.shape[-1])
    each = 4 * (x[:1].numel() + g[:1].numel()) + 8 * call.layer.get_parameter("weight").numel()
    n = max(1, call.max_bytes // each)
    for a, b in zip(g.split(n), x.split(n), strict=True):
        yield in_compute(a).mT, in_compute(b).mT


def conv_pairs(call: Call, share: int) -> Pairs:
    """Gradients by the outputs and patches of some samples at a time."""
    each = share * patch_bytes(call.x, call.layer) + 8 * call.layer.get_parameter("weight").numel()
    n = share * max(1, call.max_bytes // each)
    for g, x in zip(call.y.split(n), call.x.split(n), strict=True):
        view = windows(in_compute(x), call.layer)
        taps = range(2 + call.order, 2 + 2 * call.order)
        patches = view.permute(0, 1, *taps, *range(2, 2 + call.order))
        yield (
            by_sample(in_compute(g), call.groups, share),
            by_sample(patches.flatten(1, -1 - call.order), call.groups, share),
        )


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
