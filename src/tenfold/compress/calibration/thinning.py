"""Which positions of a batch are looked at, where there are far more than a moment needs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tenfold.compress.calibration.patches import spread

POSITIONS, PER_ENTRY = 2**13, 8
"""Positions of a call that are looked at: so many, but so many for each row of the moment at least."""


@dataclass(frozen=True)
class Thinning:
    """Positions on a grid with a random start, about `positions` of a call; None looks at all of them.

    Neighbouring pixels are nearly the same sample: of the 1.6 million positions that 512 images have in the
    first layers of a ResNet, 100 000 give the same moment of 576 rows for a sixteenth of the time. Never
    fewer than 8 a row are kept, and calls that have no more than that are kept whole.
    """

    positions: int | None
    generator: torch.Generator = field(default_factory=torch.Generator)
    parts: float = 1.0
    """In how many pieces the batch is run: each looks at its share of the positions of a call."""

    def slices(self, counts: Sequence[int], samples: int, rows: int) -> tuple[slice, ...]:
        """Slices of the position axes for a moment of so many rows; none where all positions are kept."""
        limit, whole = max(self.positions or 0, PER_ENTRY * rows), samples * self.parts
        if self.positions is None or whole * math.prod(counts) <= limit:
            return ()
        return spread(counts, whole, limit, self.generator)

    def __call__(self, x: Tensor, axis: int, rows: int) -> Tensor:
        """A tensor (N, channels, *positions) if `axis` is 1, or (*positions, channels), thinned.

        >>> thin = Thinning(4, torch.Generator().manual_seed(0))
        >>> thin(torch.zeros(2, 1, 8, 8), 1, 1).shape, thin(torch.zeros(5, 8, 1), -1, 1).shape
        (torch.Size([2, 1, 2, 2]), torch.Size([8, 1]))
        """
        if axis == 1:
            return x[(slice(None), slice(None), *self.slices(x.shape[2:], len(x), rows))]
        kept = self.slices((x.shape[:-1].numel(),), 1, rows)
        return x.flatten(0, -2)[kept] if kept else x


ALL = Thinning(None)
"""Looks at all positions."""
