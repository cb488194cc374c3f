"""Images for the subcommands: opened with a bar, and normalized as the weights expect."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
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
    scale = Scale(numbers("--mean", mean), numbers("--std", std), "--mean and --std")
    finite = all(map(isfinite, (*scale.mean, *scale.std)))
    if not finite or min(scale.std) <= 0 or len({len(scale.mean), len(scale.std)} - {1}) > 1:
        raise OptionError(
            f"--mean came as '{mean}', --std as '{std}'.",
            "Give finite numbers, one for all channels or one for each, with every --std above zero.",
        )
    return scale


def noted_scale(notes: Mapping[str, Any], source: str) -> Scale | None:
    """The scale that stands in a file, as lists or as text."""
    try:
        mean, std = (json.loads(v) if isinstance(v, str) else v for v in (notes["mean"], notes["std"]))
        return Scale(tuple(map(float, mean)), tuple(map(float, std)), source)
    except (KeyError, ValueError, TypeError):
        return None


def noted_classes(notes: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes that stand in a file; none if there are none."""
    classes = notes.get("classes")
    return tuple(map(str, classes)) if isinstance(classes, list) else ()


def measured_scale(data: ImageData) -> Scale:
    """The mean and deviation of images."""
    own = data.normalized()
    return Scale(own.mean, own.std, "the training images")


def scaled(data: ImageData, scale: Scale) -> ImageData:
    """The images, normalized."""
    return data.normalized(scale.mean, scale.std)


def alike(train: ImageData, test: ImageData) -> ImageData:
    """The test with the labels of the training, class by class.

    Classes that are only numbered cannot be compared: then the test may not have more of them.

    Raises:
        DataError: unless both have images of one shape, and the training has all classes of the test.
    """
    if train.images.shape[1:] != test.images.shape[1:] or len(test.classes) > len(train.classes):
        own, other = (f"{len(d.classes)} classes of {_shape(d)}" for d in (train, test))
        raise DataError(
            f"The training images are {own}, those of the test {other}.", "Give images of one kind."
        )
    return matched(test, train.classes)


def matched(data: ImageData, classes: Sequence[str]) -> ImageData:
    """The data with each label as the place of its class in `classes`, found by its name.

    They stay as they are where one side has only numbers for names, and not all are found.

    Raises:
        DataError: if both have names, and one of the data is not among `classes`.
    """
    if data.classes == tuple(classes):  # also where two of them have one name
        return data
    places = {name: place for place, name in enumerate(classes)}
    unknown = [name for name in data.classes if name not in places]
    if not unknown:
        labels = torch.tensor([places[name] for name in data.classes])[data.labels]
        return replace(data, labels=labels, classes=tuple(classes))
    if _numbered(data.classes) or _numbered(classes):
        return data
    raise DataError(
        f"The model was not trained on the classes {_names(unknown)}; it knows {_names(classes)}.",
        "Give images of the classes of the training, with the same names.",
    )


def _numbered(classes: Sequence[str]) -> bool:
    """Whether the classes have the names that `ImageData` gives to those without."""
    return list(classes) == [str(place) for place in range(len(classes))]


def _names(classes: Sequence[str], most: int = 10) -> str:
    more = f" and {len(classes) - most} more" if len(classes) > most else ""
    return ", ".join(classes[:most]) + more


def _shape(data: ImageData) -> str:
    return "×".join(map(str, data.images.shape[1:]))


def first(data: ImageData, count: int) -> Tensor:
    """The first images as an input."""
    return next(iter(data.batches(count)))[0]
