"""Moments between the inputs that one model gives to a layer and the outputs that another wants there."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.compress.calibration.calls import batched
from tenfold.compress.calibration.patches import (
    channel_matrix,
    in_compute,
    order_of,
    patch_matrices,
    spread,
)
from tenfold.compress.calibration.site_statistics import centred
from tenfold.compress.calibration.sums import Sums

WHOLE = 2**62
POSITIONS, PER_ENTRY = 2**14, 8
"""Positions of a batch that are looked at: so many, but so many for each entry of a patch at least."""


@dataclass(frozen=True)
class CrossMoments:
    """Means over positions, in float64: patches p of one model, outputs y of another, without the bias.

    k entries of a patch, o outputs; a convolution with g > 1 groups has stacks, one for each group.
    """

    p: Float[Tensor, "*g k"]
    y: Float[Tensor, "*g o"]
    pp: Float[Tensor, "*g k k"]
    yp: Float[Tensor, "*g o k"]
    yy: Float[Tensor, "*g"]

    def about_means(self) -> "CrossMoments":
        """The same of p - E[p] and y - E[y], whose means are 0."""
        return replace(
            self,
            p=torch.zeros_like(self.p),
            y=torch.zeros_like(self.y),
            pp=centred(self.p, self.pp),
            yp=self.yp - self.y[..., :, None] * self.p[..., None, :],
            yy=self.yy - self.y.square().sum(-1),
        )

    def matrix(self, weight: Float[Tensor, "o i *taps"]) -> Float[Tensor, "*g o k"]:
        """A weight as the matrix, or the stack, that takes patches to outputs."""
        return weight.detach().double().reshape(self.yp.shape)

    def error(self, weight: Float[Tensor, "o i *taps"]) -> float:
        """√(E‖y - W p‖² / E‖y‖²)."""
        w = self.matrix(weight)
        left = self.yy.sum() - 2 * (w * self.yp).sum() + ((w @ self.pp) * w).sum()
        whole = self.yy.sum().clamp_min(torch.finfo(w.dtype).tiny)
        return float((left / whole).clamp_min(0).sqrt())

    def lost(self, weight: Float[Tensor, "o i *taps"]) -> Float[Tensor, " o"]:
        """E[y] - W E[p]."""
        return (self.y - (self.matrix(weight) @ self.p[..., None])[..., 0]).flatten()


class CrossSums:
    """Running sums for `CrossMoments` of one dense layer, which says how patches are cut."""

    def __init__(self, layer: nn.Module, positions: int = POSITIONS, seed: int = 0) -> None:
        self.layer, self.sums, self.count = layer, Sums(), 0
        self.limit = max(positions, PER_ENTRY * layer.get_parameter("weight")[0].numel())
        self.generator = torch.Generator().manual_seed(seed)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add a call: the input of the one model, and the output of the other, with the bias.

        Of a large batch, positions on a grid with a random start are looked at.
        """
        if x.numel():
            p, outputs = self.columns(x, y)
            self.add_columns(p, outputs)

    def columns(self, x: Tensor, *outputs: Tensor) -> list[Tensor]:
        """At the positions that are looked at next: the patches of x, (*g, k, positions), and what has the
        shape of the outputs, less the bias, each (*g, o, positions)."""
        layer, order, groups = self.layer, order_of(self.layer) or 0, getattr(self.layer, "groups", 1)
        x, maps = batched(x, order), [self._free(batched(y, order), order) for y in outputs]
        if order:
            kept = spread(maps[0].shape[2:], len(x), self.limit, self.generator)
            p = next(patch_matrices(x, layer, WHOLE, kept))
            at = [y[(slice(None), slice(None), *kept)] for y in maps]
        else:
            (rows,) = spread((x.shape[:-1].numel(),), 1, self.limit, self.generator)
            p = channel_matrix(in_compute(x.flatten(0, -2)[rows]), 0)
            at = [y.flatten(0, -2)[rows] for y in maps]
        return [p, *(channel_matrix(y, order, groups).to(p.dtype) for y in at)]

    def _free(self, y: Tensor, order: int) -> Tensor:
        """Outputs without the bias."""
        bias: Tensor | None = self.layer.bias  # type: ignore[assignment]
        return y if bias is None else y - bias.detach().reshape(-1, *[1] * order)

    def add_columns(self, p: Tensor, y: Tensor, known: CrossMoments | None = None) -> None:
        """Add a call as `columns` gives it; patches whose moments are known are not summed again."""
        if known is None:
            self.sums.add("p", p.sum(-1))
            self.sums.add("pp", p @ p.mT)
        self.sums.add("y", y.sum(-1))
        self.sums.add("yp", y @ p.mT)
        self.sums.add("yy", y.square().sum((-2, -1)))
        self.count += p.shape[-1]

    def moments(self, known: CrossMoments | None = None) -> CrossMoments:
        """The means; those of the patches may be known from the same positions."""
        means = {n: total.double() / self.count for n, total in self.sums.totals.items()}
        return CrossMoments(**means) if known is None else replace(known, **means)
