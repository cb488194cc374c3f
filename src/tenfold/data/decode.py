"""Encoded images (PNG, JPEG and whatever else Pillow reads) to one array of bytes."""

from collections.abc import Callable, Iterable
from io import BytesIO
from struct import error as StructError
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tenfold.core.errors import DataError, MissingExtraError

Progress = Callable[[int, int], object]
Pixels = UInt8[np.ndarray, "c h w"]

GREY = frozenset({"1", "L", "LA"})
COLOUR = frozenset({"RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
PALETTE = frozenset({"P", "PA"})
PROGRESS_STEP = 500


def decode_images(
    encoded: Iterable[tuple[str, bytes]], count: int, progress: Progress | None = None
) -> UInt8[Tensor, "n c h w"]:
    """`count` images, each given as (where it comes from, its bytes), in one tensor.

    Grey images have one channel; when there is a colour image among them, all have three. Transparency is
    dropped. Some 8 000 CIFAR images a second on one core. `progress` is called with (done, count) now and
    then.

    Raises:
        DataError: if there are none, one cannot be decoded, or sizes differ.
        MissingExtraError: without Pillow.

    >>> from PIL import Image
    >>> Image.new("RGB", (4, 2), "red").save(file := BytesIO(), "PNG")
    >>> decode_images([("the red one", file.getvalue())], count=1)[0, :, 0, 0]
    tensor([255,   0,   0], dtype=torch.uint8)
    """
    pillow = _pillow()
    pixels = np.empty((count, 0, 0, 0), np.uint8)
    for row, (where, data) in enumerate(encoded):
        image = _decode(pillow, where, data)
        pixels = _with_room_for(image, pixels, row, where)
        pixels[row] = image
        if progress is not None and ((row + 1) % PROGRESS_STEP == 0 or row + 1 == count):
            progress(row + 1, count)
    return torch.from_numpy(pixels)


def _with_room_for(image: Pixels, pixels: np.ndarray, row: int, where: str) -> np.ndarray:
    """The array for all images: made for the first one, widened to three channels for the first in colour."""
    if row == 0:
        return np.empty((len(pixels), *image.shape), np.uint8)
    if image.shape[1:] != pixels.shape[2:]:
        (height, width), (first_height, first_width) = image.shape[1:], pixels.shape[2:]
        raise DataError(
            f"All images must have one size, but {where} is {height}×{width} and those before it are "
            f"{first_height}×{first_width} (height×width).",
            "Resize the images to one size first.",
        )
    return np.repeat(pixels, 3, axis=1) if len(image) > pixels.shape[1] else pixels


def _decode(pillow: Any, where: str, data: bytes) -> Pixels:
    try:
        with pillow.open(BytesIO(data)) as image:
            array = np.asarray(_plain(image, where))
    except (OSError, SyntaxError, ValueError, EOFError, StructError, pillow.DecompressionBombError) as error:
        reason = "unknown format" if isinstance(error, pillow.UnidentifiedImageError) else error
        raise DataError(
            f"The {len(data)} bytes of {where} cannot be decoded as an image ({reason}).",
            "Repair the image or leave it out.",
        ) from error
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _plain(image: Any, where: str) -> Any:
    """The image in grey or in red, green and blue, eight bits each."""
    if image.mode in GREY:
        return image.convert("L")
    if image.mode in PALETTE:
        return image.convert("RGBA").convert("RGB")
    if image.mode in COLOUR:
        return image.convert("RGB")
    raise DataError(
        f"{where} has pixels of Pillow's mode '{image.mode}', which do not fit into eight bits.",
        "Convert it to 8-bit grey or RGB.",
    )


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "data", "Decoding images") from error
    return Image
