"""Labelled images, held as bytes and turned into numbers a batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from tenfold.core.errors import DataError, OptionError

MOST_CLASSES = 100_000


@dataclass(frozen=True, eq=False)
class ImageData:
    """N images with labels.

    images: uint8, N×C×H×W. labels: int64, N, each the place of its class in `classes`; without names, the
    classes are "0", "1", … up to the largest label. mean, std: what `batches` subtracts and divides by, one
    number a channel (or one for all), in units where the brightest pixel is 1.

    Raises:
        DataError: if there are no images, or images, labels and classes do not fit.

    >>> data = ImageData(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("cat", "dog"))
    >>> len(data), data.classes
    (3, ('cat', 'dog'))
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        _check_images(self.images)
        _check_labels(self.labels, len(self.images), len(self.classes) or MOST_CLASSES)
        _check_scale(self.mean, self.std, self.images.shape[1])
        if not self.classes:
            object.__setattr__(self, "classes", tuple(map(str, range(int(self.labels.max()) + 1))))

    def __len__(self) -> int:
        return len(self.images)

    def normalized(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> "ImageData":
        """The same images, of which `batches` gives (pixel / 255 - mean) / std.

        What is left out is computed from these images, channel by channel. Test images are normalized with
        the numbers of the training images: `test.normalized(train.mean, train.std)`.

        Raises:
            OptionError: unless there is one number a channel, or one for all, all are finite, and every std
                is positive.

        >>> images = torch.tensor([[[[0, 255]]], [[[255, 0]]]], dtype=torch.uint8)
        >>> ImageData(images, torch.tensor([0, 1])).normalized().mean
        (0.5,)
        """
        if mean is None or std is None:
            own_mean, own_std = _statistics(self.images)
            mean, std = own_mean if mean is None else mean, own_std if std is None else std
        return replace(self, mean=tuple(mean), std=tuple(std))

    def split(self, fraction: float, seed: int = 0) -> tuple["ImageData", "ImageData"]:
        """Two parts drawn at random: the first has `fraction` of the images, the second the rest.

        Raises:
            OptionError: if one part would be empty.

        >>> data = ImageData(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10))
        >>> [len(part) for part in data.split(0.8)]
        [8, 2]
        """
        count = round(fraction * len(self))
        if not 0 < count < len(self):
            raise OptionError(
                f"A split of {len(self)} images at the fraction {fraction} leaves one part empty.",
                "Choose a fraction between 0 and 1 that gives each part an image.",
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self._part(order[:count]), self._part(order[count:])

    def batches(
        self, size: int, shuffle: bool = False, generator: torch.Generator | None = None
    ) -> "ImageBatches":
        """Batches of `size` (inputs, labels), the last one smaller; they can be read as often as you like.

        With `shuffle`, every reading has a new order, drawn from `generator` (torch's own by default).

        Raises:
            OptionError: unless `size` >= 1.

        >>> data = ImageData(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10))
        >>> [tuple(inputs.shape) for inputs, labels in data.batches(8)]
        [(8, 1, 2, 2), (2, 1, 2, 2)]
        """
        return ImageBatches(self, size, shuffle, generator)

    def _part(self, index: Tensor) -> "ImageData":
        return replace(self, images=self.images[index], labels=self.labels[index])


@dataclass(frozen=True, eq=False)
class ImageBatches:
    """Batches of labelled images: inputs float32 n×C×H×W, normalized; labels int64 n."""

    data: ImageData
    size: int
    shuffle: bool = False
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"A batch needs size >= 1, got {self.size}.", "Typical sizes are 32 to 512.")

    def __len__(self) -> int:
        return -(-len(self.data) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        mean, std = (torch.tensor(scale).view(-1, 1, 1) for scale in (self.data.mean, self.data.std))
        for index in self._order().split(self.size):
            yield (self.data.images[index] / 255 - mean) / std, self.data.labels[index]

    def _order(self) -> Tensor:
        count = len(self.data)
        return torch.randperm(count, generator=self.generator) if self.shuffle else torch.arange(count)


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel (1 where it is constant), from how often a byte occurs."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)
    levels = torch.arange(256).double() / 255
    mean = share @ levels
    std = (share * (levels - mean[:, None]).square()).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(std.where(std > 0, 1.0).tolist())


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(
            f"Images must be uint8 of shape N×C×H×W, but are {images.dtype} of shape {tuple(images.shape)}.",
            "Bring them to 0..255 and put the channels second.",
        )
    if images.numel() == 0:
        raise DataError(
            f"There are no images: their shape is {tuple(images.shape)}.",
            "Give at least one image of one pixel.",
        )


def _check_labels(labels: Tensor, count: int, classes: int) -> None:
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise DataError(
            f"{count} images need {count} int64 labels, but the labels are {labels.dtype} "
            f"of shape {tuple(labels.shape)}.",
            "Give one whole number for each image.",
        )
    wrong = torch.nonzero((labels < 0) | (labels >= classes)).flatten()
    if len(wrong):
        raise DataError(
            f"Row {int(wrong[0])} has the label {int(labels[wrong[0]])}, outside 0..{classes - 1} "
            f"({len(wrong)} rows in all).",
            "Number the classes from 0, and leave out images without a label.",
        )


def _check_scale(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    finite = all(map(isfinite, (*mean, *std)))
    if {len(mean), len(std)} - {1, channels} or not finite or min(std) <= 0:
        wanted = "one finite number" if channels == 1 else f"1 or {channels} finite numbers"
        raise OptionError(
            f"Images of {channels} channels cannot be normalized with mean={tuple(mean)}, std={tuple(std)}.",
            f"Give {wanted} each, with every std above zero.",
        )
