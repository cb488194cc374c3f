"""NumPy archives of labelled images."""

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from tenfold.core.errors import DataError
from tenfold.data.images import ImageData

CHANNELS = (1, 3, 4)
# What NumPy and zipfile raise where an archive is none, is cut off, or claims more than there is.
DAMAGES = (BadZipFile, zlib.error, OSError, ValueError, TypeError, EOFError, MemoryError, RuntimeError)


def read_npz(path: Path) -> ImageData:
    """Images of an archive with the arrays `images` and `labels`.

    `images` is N×H×W, N×H×W×C or N×C×H×W with 1, 3 or 4 channels, of whole numbers in 0..255 or of floats
    in [0, 1]; `labels` has N whole numbers.

    Raises:
        DataError: if an array is missing, or its shape, type or values are others (the message says which).

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", images=np.ones((2, 8, 8, 3)), labels=np.array([1, 0]))
    ...     read_npz(Path(folder, "a.npz")).images.shape
    torch.Size([2, 3, 8, 8])
    """
    arrays = _arrays(path)
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise DataError(
            f"{path} has no array {' or '.join(map(repr, missing))}; it has {', '.join(arrays) or 'none'}.",
            "Write it with numpy.savez(path, images=images, labels=labels).",
        )
    images = np.ascontiguousarray(_channels_second(_as_bytes(arrays["images"])))
    return ImageData(torch.from_numpy(images), torch.from_numpy(_whole(path, arrays["labels"])))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except DAMAGES as error:
        raise DataError(
            f"{path} is not a NumPy archive of plain arrays ({error}).",
            "Write it with numpy.savez(path, images=images, labels=labels).",
        ) from error


def _as_bytes(images: np.ndarray) -> np.ndarray:
    floats = np.issubdtype(images.dtype, np.floating)
    brightest = 1 if floats else 255
    if not floats and not np.issubdtype(images.dtype, np.integer):
        raise DataError(f"Images are of type {images.dtype}.", "Needed are whole numbers or floats.")
    if images.size and not (images.min() >= 0 and images.max() <= brightest):
        raise DataError(
            f"Images of type {images.dtype} must lie in 0..{brightest}, but reach from {images.min()} "
            f"to {images.max()}.",
            "Scale floats to [0, 1] and whole numbers to 0..255.",
        )
    return np.rint(images * 255).astype(np.uint8) if floats else images.astype(np.uint8, copy=False)


def _channels_second(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    second, last = (images.ndim == 4 and images.shape[axis] in CHANNELS for axis in (1, 3))
    if second == last:
        raise DataError(
            f"Images of shape {images.shape} {'could be either' if second else 'are neither'} N×C×H×W "
            f"{'or' if second else 'nor'} N×H×W×C with 1, 3 or 4 channels.",
            "Bring them to N×H×W or to one of these.",
        )
    return images if second else images.transpose(0, 3, 1, 2)


def _whole(path: Path, labels: np.ndarray) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"Labels are of type {labels.dtype}.", "Needed are whole numbers, from 0.")
    if labels.size and labels.max() > np.iinfo(np.int64).max:
        raise DataError(
            f"{path} has the label {labels.max()}, which is no int64.", "Number the classes from 0."
        )
    return labels.astype(np.int64)
