"""Parquet files of labelled images, as Hugging Face `datasets` writes them."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tenfold.core.errors import DataError, MissingExtraError
from tenfold.data.decode import Progress, decode_images
from tenfold.data.images import ImageData

ROWS_AT_ONCE = 1000
MOST = torch.iinfo(torch.int64).max


def read_parquet(path: Path, progress: Progress | None = None) -> ImageData:
    """Images of a file with the columns `image` (a struct with encoded `bytes`) and `label` (whole numbers).

    The names of the classes come from the metadata of Hugging Face where there are some.

    Raises:
        DataError: if a column is missing or of another type, or an image or label is bad (it says which row).
        MissingExtraError: without pyarrow or Pillow.

    >>> from io import BytesIO
    >>> from tempfile import TemporaryDirectory
    >>> import pyarrow, pyarrow.parquet
    >>> from PIL import Image
    >>> Image.new("L", (4, 2)).save(file := BytesIO(), "PNG")
    >>> table = pyarrow.table({"image": [{"bytes": file.getvalue()}], "label": [0]})
    >>> with TemporaryDirectory() as folder:
    ...     pyarrow.parquet.write_table(table, f"{folder}/a.parquet")
    ...     read_parquet(Path(folder, "a.parquet")).images.shape
    torch.Size([1, 1, 2, 4])
    """
    with _opened(path) as file:
        _check_columns(path, file.schema_arrow)
        labels = _labels(path, file)
        images = decode_images(_encoded(path, file), len(labels), progress)
        return ImageData(images, labels, _classes(file.schema_arrow))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data", "Reading parquet files") from error
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (arrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a parquet file ({error}).", "Write or download it again."
        ) from error


def _check_columns(path: Path, schema: Any) -> None:
    missing = [name for name in ("image", "label") if name not in schema.names]
    if missing:
        raise DataError(
            f"{path} has no column {' or '.join(map(repr, missing))}; it has {', '.join(schema.names)}.",
            "Rename the column with the images to 'image' and the one with the classes to 'label'.",
        )
    image, label = str(schema.field("image").type), str(schema.field("label").type)
    if not (re.match(r"struct<.*\bbytes: (large_)?binary", image) and re.fullmatch(r"u?int\d+", label)):
        raise DataError(
            f"In {path} the column 'image' has the type {image} and 'label' the type {label}.",
            "Needed are a struct with the field 'bytes', as Hugging Face writes, and whole numbers.",
        )


def _encoded(path: Path, file: Any) -> Iterator[tuple[str, bytes]]:
    row = 0
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["image.bytes"]):
        for data in batch.column(0).field("bytes").to_pylist():
            yield f"row {row} of {path}", data or b""
            row += 1


def _labels(path: Path, file: Any) -> torch.Tensor:
    labels = file.read(columns=["label"]).column("label").to_pylist()
    if None in labels:
        raise DataError(
            f"Row {labels.index(None)} of {path} has no label.", "Leave out images without a label."
        )
    if labels and max(labels) > MOST:
        raise DataError(
            f"Row {labels.index(max(labels))} of {path} has the label {max(labels)}, which is no int64.",
            "Number the classes from 0.",
        )
    return torch.tensor(labels, dtype=torch.int64)


def _classes(schema: Any) -> tuple[str, ...]:
    """The names in the feature `label` of Hugging Face's metadata; none if there are none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features["label"]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
