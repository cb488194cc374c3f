"""Calls of transposed convolutions: the weight meets the channels of one input position."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress.calibration.calls import (
    Call,
    Columns,
    Setting,
    Squares,
    argument,
    batched,
    by_sample,
    seen_by,
    squared_sums,
    taps_last,
)
from tenfold.compress.calibration.patches import in_compute


@seen_by(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
@dataclass(frozen=True, eq=False)
class Spread(Call):
    """Every position of the input gives, by the weight (i, o, *taps), a patch that is added to the output.

    So the weight is used once for each position of the input, and meets its channels alone: its patches are
    the inputs. The gradients by the entries of a patch are those by the outputs where it goes. What different
    taps have in common is left out: their gradients are taken to be as those of an output, on average, and
    not to be correlated.
    """

    ratio: float
    """Positions of the input over those of the output."""

    @classmethod
    def of(
        cls, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor, at: Setting
    ) -> Self:
        """Inputs and outputs as they are."""
        order = layer.get_parameter("weight").ndim - 2
        x, y = batched(argument(0, "input", args, kwargs), order), batched(y, order)
        return cls(layer, x, y, at, x[0, 0].numel() / y[0, 0].numel())

    @staticmethod
    def patches_are_inputs(layer: nn.Module) -> bool:
        """Always."""
        return True

    @staticmethod
    def rows(layer: nn.Module) -> tuple[int, int, int]:
        """Inputs of a group, the same, outputs of all groups."""
        inputs, outputs = layer.get_parameter("weight").shape[:2]
        groups: int = layer.groups  # type: ignore[assignment]
        return inputs // groups, inputs // groups, outputs * groups

    @property
    def order(self) -> int:
        """Spatial axes."""
        return self.layer.get_parameter("weight").ndim - 2

    @property
    def uses(self) -> float:
        """Once for each position of the input."""
        return self.ratio

    def patches(self) -> Iterator[Columns]:
        """The inputs."""
        return self.inputs()

    def squared_gradients(self) -> Iterator[Squares]:
        """The gradient of a sample n is Σ_t x_nt q_ntᵀ over the positions t of the input, with q the patches
        of output gradients; summed over inputs and taps for each output, and over these for each input."""
        taps, share = self.layer.get_parameter("weight")[0, 0].numel(), self.share
        each = share * taps * 4 * self.x[:1].numel() // self.x.shape[1] * self.y.shape[1]
        n = share * max(1, self.at.max_bytes // max(1, each))
        for g, x in zip(self.y.split(n), self.x.split(n), strict=True):
            patches = by_sample(gradient_patches(in_compute(g), x.shape[2:], self.layer), self.groups, share)
            rows, columns = squared_sums(patches, by_sample(in_compute(x), self.groups, share))
            yield rows.unflatten(-1, (-1, taps)).sum(-1).flatten(), columns


def gradient_patches(g: Tensor, counts: tuple[int, ...], layer: nn.Module) -> Tensor:
    """What each tap of each input position sees of an output, (batch, outputs · taps, *positions).

    >>> import torch
    >>> g = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    >>> gradient_patches(g, (2,), nn.ConvTranspose1d(1, 1, 2, stride=2))
    tensor([[[1., 3.],
             [2., 4.]]])
    """
    names = ("kernel_size", "stride", "padding", "dilation")
    kernel, stride, padding, dilation = (tuple(getattr(layer, name)) for name in names)
    ends = [
        (p, max(0, (n - 1) * s + d * (k - 1) + 1 - p - length))
        for n, k, s, p, d, length in zip(counts, kernel, stride, padding, dilation, g.shape[2:], strict=True)
    ]
    g = F.pad(g, [n for pair in reversed(ends) for n in pair])
    steps = g.stride()[2:]
    strides = [n * s for n, s in zip(steps, stride, strict=True)]
    dilations = [n * d for n, d in zip(steps, dilation, strict=True)]
    view = g.as_strided((*g.shape[:2], *counts, *kernel), (*g.stride()[:2], *strides, *dilations))
    return taps_last(view, len(counts))
