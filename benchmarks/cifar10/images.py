"""The images of the benchmark, on the device that trains."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from protocol import Protocol
from torch import Tensor

from tenfold.data import ImageData, digits, open_data
from tenfold.data.augment import Augmented

DIGITS = "digits"
KINDS = ("parquet", "npz")
CALIBRATION_BATCH = 125
TEST_BATCH = 1000


@dataclass(frozen=True)
class Data:
    """Images to train on, to stop by, and to test on, all normalized with the scale of the first."""

    name: str
    train: ImageData
    valid: ImageData
    test: ImageData

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.train.classes)

    @property
    def example(self) -> Tensor:
        """Inputs as the networks take them."""
        return next(iter(self.train.batches(2)))[0]

    def on(self, device: torch.device) -> "Data":
        """The same images on another device."""
        return Data(self.name, *(on(part, device) for part in (self.train, self.valid, self.test)))

    def described(self) -> dict[str, object]:
        """For JSON."""
        counts = {part: len(getattr(self, part)) for part in ("train", "valid", "test")}
        return {"name": self.name, **counts, "mean": self.train.mean, "std": self.train.std}


def load_data(path: str, protocol: Protocol, device: torch.device) -> Data:
    """`path` is a folder with train.parquet and test.parquet (or .npz), or "digits" for scikit-learn's."""
    pool, test = digits() if path == DIGITS else (open_part(path, "train"), open_part(path, "test"))
    pool = pool.normalized()
    test = test.normalized(pool.mean, pool.std)
    train, valid = pool.split(1 - protocol.valid, protocol.seed)
    if protocol.images is not None and protocol.images < len(train):
        train, _ = train.split(protocol.images / len(train), protocol.seed)
    name = DIGITS if path == DIGITS else Path(path).resolve().name
    return Data(name, train, valid, test).on(device)


def open_part(folder: str, part: str) -> ImageData:
    """Train or test; raises FileNotFoundError if the folder has neither kind of file."""
    found = [path for kind in KINDS if (path := Path(folder, f"{part}.{kind}")).is_file()]
    if not found:
        raise FileNotFoundError(f"'{folder}' has no {part}.parquet and no {part}.npz.")
    return open_data(found[0])


def on(data: ImageData, device: torch.device) -> ImageData:
    """The bytes on a device, so that batches are cut, normalized and augmented there."""
    return replace(data, images=data.images.to(device), labels=data.labels.to(device))


def shuffled(data: Data, protocol: Protocol) -> Iterable[tuple[Tensor, Tensor]]:
    """The batches to train on; order and augmentation come from the seed alone."""
    generator = torch.Generator().manual_seed(protocol.seed)
    batches = data.train.batches(protocol.batch, shuffle=True, generator=generator)
    return Augmented(batches, generator=generator) if protocol.augment else batches


def calibration(data: Data, protocol: Protocol) -> list[tuple[Tensor, Tensor]]:
    """The training images that ours may look at before tuning, as they are."""
    count = protocol.calibration
    part = data.train if count >= len(data.train) else data.train.split(count / len(data.train), 0)[0]
    return list(part.batches(CALIBRATION_BATCH))
