"""Folders of images, one for each class."""

from pathlib import Path

import torch

from tenfold.core.errors import DataError
from tenfold.data.decode import Progress, decode_images
from tenfold.data.images import ImageData

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


def read_folder(root: Path, progress: Progress | None = None) -> ImageData:
    """Images of `root/class_name/*.png` (or jpg, jpeg), in the order of their names.

    The classes are the folders in `root`, also those without images, so that two roots with the same
    folders agree.

    Raises:
        DataError: if there are no images, one cannot be read, or sizes differ (the message says the file).
        MissingExtraError: without Pillow.

    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> with TemporaryDirectory() as root:
    ...     for name in ("cat", "dog"):
    ...         Path(root, name).mkdir()
    ...         Image.new("RGB", (4, 2)).save(Path(root, name, "1.png"))
    ...     read_folder(Path(root)).classes
    ('cat', 'dog')
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [(path, label) for label, folder in enumerate(folders) for path in _images(folder)]
    if not found:
        name = root.resolve().name
        raise DataError(
            f"There are no images in {root}: expected are {name}/class_name/*.png (or jpg, jpeg), "
            f"but {name} holds {len(folders)} folders without any.",
            "Put the images of each class into a folder of its own.",
        )
    encoded = ((str(path), _read(path)) for path, _ in found)
    images = decode_images(encoded, len(found), progress)
    return ImageData(
        images, torch.tensor([label for _, label in found]), tuple(path.name for path in folders)
    )


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read as an image ({error.strerror}).", "Repair it or leave it out."
        ) from error
