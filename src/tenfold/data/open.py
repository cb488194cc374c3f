"""Labelled images from a path, whatever lies there."""

from os import PathLike
from pathlib import Path

from tenfold.core.errors import DataError
from tenfold.data.decode import Progress
from tenfold.data.folder import read_folder
from tenfold.data.images import ImageData
from tenfold.data.npz import read_npz
from tenfold.data.parquet import read_parquet


def open_data(path: str | PathLike[str], progress: Progress | None = None) -> ImageData:
    """Labelled images of a `.parquet` file, an `.npz` file, or a folder `path/class_name/*.png` (jpg, jpeg).

    A parquet file has the columns `image` (a struct with `bytes`) and `label`, as Hugging Face writes them;
    an npz file the arrays `images` and `labels`. All images must have one size; they are held as bytes in
    memory. `progress` is called with (done, total) while images are decoded.

    Raises:
        DataError: if the path does not exist or holds no such images; the message says what is wrong where.
        MissingExtraError: without Pillow or pyarrow, where they are needed.

    >>> import numpy, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numpy.savez(f"{folder}/two.npz", images=numpy.zeros((2, 8, 8)), labels=numpy.array([0, 1]))
    ...     open_data(f"{folder}/two.npz").images.shape
    torch.Size([2, 1, 8, 8])
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"There is no file or folder '{path}'.",
            "Check the path; a relative one starts at the current folder.",
        )
    if path.is_dir():
        return read_folder(path, progress)
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, progress)
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    raise DataError(
        f"'{path}' ends in '{path.suffix}', which is not known.",
        "Give a .parquet file, an .npz file, or a folder with one folder of images for each class.",
    )
