"""Calls of bilinear layers: the weight of an output meets the products of the entries of both inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from tenfold.compress.calibration.calls import (
    Call,
    Columns,
    Setting,
    Squares,
    argument,
    batched,
    seen_by,
    squared_sums,
)
from tenfold.compress.calibration.patches import chunks, in_compute


@seen_by(nn.Bilinear)
@dataclass(frozen=True, eq=False)
class Pair(Call):
    """y_o = Σ W_oij x_i z_j: its patches are the products x ⊗ z, in the order of the weight's axes.

    So their moment knows how the two inputs go together. Where it has too many entries, the moment of the
    first input alone is known.
    """

    z: Tensor

    @classmethod
    def of(
        cls, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], y: Tensor, at: Setting
    ) -> Self:
        """Both inputs and the output as they are."""
        x, z = (batched(argument(k, f"input{k + 1}", args, kwargs), 0) for k in range(2))
        return cls(layer, x, batched(y, 0), at, z)

    @staticmethod
    def patches_are_inputs(layer: nn.Module) -> bool:
        """Never."""
        return False

    @staticmethod
    def rows(layer: nn.Module) -> tuple[int, int, int]:
        """First inputs, products with the second ones, outputs."""
        weight = layer.get_parameter("weight")
        return weight.shape[1], weight[0].numel(), weight.shape[0]

    def waiting(self, keeps_input: bool) -> Self:
        """With both inputs or none."""
        z = self.z.detach() if keeps_input else self.z.new_empty(0)
        return replace(super().waiting(keeps_input), z=z)

    def patches(self) -> Iterator[Columns]:
        """Products × positions, in pieces."""
        x, z = self.x.flatten(0, -2), self.z.flatten(0, -2)
        width = x.shape[1] * z.shape[1]
        kept = self.at.thinning.slices((len(x),), 1, width) or (slice(None),)
        each = width * max(4, x.element_size())
        pieces = (chunks(side[kept], self.at.max_bytes, each) for side in (x, z))
        return (products(a, b).mT for a, b in zip(*pieces, strict=True))

    def squared_gradients(self) -> Iterator[Squares]:
        """The gradient of a sample is the sum of g ⊗ x ⊗ z over its positions."""
        share, width = self.share, self.x.shape[-1] * self.z.shape[-1]
        g, x, z = (side.reshape(len(side) // share, -1, side.shape[-1]) for side in (self.y, self.x, self.z))
        each = 4 * x.shape[1] * width + 8 * self.layer.get_parameter("weight").numel()
        n = max(1, self.at.max_bytes // each)
        for a, b, c in zip(g.split(n), x.split(n), z.split(n), strict=True):
            patches = products(in_compute(b), in_compute(c))
            rows, columns = squared_sums(in_compute(a).mT[:, None], patches.mT[:, None])
            yield rows.flatten(), columns


def products(x: Float[Tensor, "*n i"], z: Float[Tensor, "*n j"]) -> Float[Tensor, "*n ij"]:
    """All products of an entry of the one and an entry of the other, row by row."""
    return (x[..., :, None] * z[..., None, :]).flatten(-2)
