"""Random shifts and mirror images, so that a small set of images goes further."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.core.errors import OptionError

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Augmented:
    """The same batches; each image is shifted by up to `shift` pixels and mirrored with probability ½.

    What comes in at the edge is zero, which is the mean colour of normalized images. Every reading draws
    anew, from `generator` (torch's own by default). Source: He et al. 2016, section 4.2, for CIFAR.

    >>> batches = Augmented([(torch.ones(2, 1, 8, 8), torch.tensor([0, 1]))])
    >>> [(tuple(images.shape), labels.tolist()) for images, labels in batches]
    [((2, 1, 8, 8), [0, 1])]
    """

    batches: Batches
    shift: int = 4
    mirror: bool = True
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise OptionError(f"Images cannot be shifted by up to {self.shift} pixels.", "Give 0 or more.")

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.batches:
            shifted = self._shifted(images)
            yield self._mirrored(shifted) if self.mirror else shifted, labels

    def _shifted(self, images: Tensor) -> Tensor:
        """Every image cut out of itself with a frame of `shift` pixels, at a place of its own."""
        count, _, height, width = images.shape
        framed = F.pad(images, (self.shift,) * 4)
        top, left = torch.randint(2 * self.shift + 1, (2, count), generator=self.generator)
        rows = (top[:, None] + torch.arange(height))[:, :, None]
        columns = (left[:, None] + torch.arange(width))[:, None, :]
        return framed.movedim(1, 3)[torch.arange(count)[:, None, None], rows, columns].movedim(3, 1)

    def _mirrored(self, images: Tensor) -> Tensor:
        chosen = torch.rand(len(images), generator=self.generator) < 0.5
        return torch.where(chosen[:, None, None, None], images.flip(3), images)
