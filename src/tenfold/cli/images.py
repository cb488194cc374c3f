"""Images for the subcommands: opened with a bar, and normalized as the weights expect."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tenfold.cli.asked import numbers
from tenfold.cli.bars import Bars
from tenfold.core.errors import DataError, OptionError
from tenfold.data import ImageData, digits, open_data

DIGITS = "digits"


@dataclass(frozen=True)
class Scale:
    """What inputs are normalized with, one number a channel, and where the numbers are from."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    def notes(self) -> dict[str, str]:
        """For the metadata of a file of weights."""
        return {"mean": json.dumps(self.mean), "std": json.dumps(self.std)}


def open_images(path: str, progress: Bars, *, test: bool = False) -> ImageData:
    """Images of a path; "digits" are scikit-learn's, of which one part is for training and one for tests."""
    if path == DIGITS and not Path(path).exists():
        return digits()[test]
    with progress.bar(f"Reading {Path(path).name}") as bar:
        return open_data(path, bar.at)


def given_scale(mean: str | None, std: str | None) -> Scale | None:
    """The scale of --mean and --std; both or none."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise OptionError("Only one of --mean and --std is given.", "Give both, or none.")
    return Scale(numbers("--mean", mean), numbers("--std", std), "--mean and --std")


def noted_scale(notes: Mapping[str, Any], source: str) -> Scale | None:
    """The scale that stands in a file, as lists or as text."""
    try:
        mean, std = (json.loads(v) if isinstance(v, str) else v for v in (notes["mean"], notes["std"]))
        return Scale(tuple(map(float, mean)), tuple(map(float, std)), source)
    except (KeyError, ValueError, TypeError):
        return None


def measured_scale(data: ImageData) -> Scale:
    """The mean and deviation of images."""
    own = data.normalized()
    return Scale(own.mean, own.std, "the training images")


def scaled(data: ImageData, scale: Scale) -> ImageData:
    """The images, normalized."""
    return data.normalized(scale.mean, scale.std)


def check_alike(train: ImageData, test: ImageData) -> None:
    """Raise DataError unless both have images of one shape, and the test has no class of its own."""
    if train.images.shape[1:] != test.images.shape[1:] or len(test.classes) > len(train.classes):
        own, other = (f"{len(d.classes)} classes of {_shape(d)}" for d in (train, test))
        raise DataError(
            f"The training images are {own}, those of the test {other}.", "Give images of one kind."
        )


def _shape(data: ImageData) -> str:
    return "×".join(map(str, data.images.shape[1:]))


def first(data: ImageData, count: int) -> Tensor:
    """The first images as an input."""
    return next(iter(data.batches(count)))[0]
