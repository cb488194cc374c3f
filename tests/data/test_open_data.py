"""What `open_data` reads, and what it says where it cannot."""

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pyarrow as arrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from tenfold.core.errors import DataError, MissingExtraError
from tenfold.data import open_data

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 6, 7), dtype=np.uint8)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def write_parquet(path: Path, images: list[bytes | None], labels: list[int | None], **names: str) -> Path:
    """As Hugging Face writes it; `names` are other names for the columns `image` and `label`."""
    rows = [{"bytes": data, "path": None} for data in images]
    struct = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    table = arrow.table(
        {
            names.get("image", "image"): arrow.array(rows, struct),
            names.get("label", "label"): arrow.array(labels, arrow.int64()),
        }
    )
    parquet.write_table(table, path)
    return path


@pytest.fixture
def colour_file(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "a.parquet", [encoded(image) for image in COLOUR], [0, 1, 2, 1, 0])


class TestParquet:
    def test_png_pixels_come_back_exactly(self, colour_file: Path) -> None:
        data = open_data(colour_file)
        assert torch.equal(data.images, torch.from_numpy(COLOUR.transpose(0, 3, 1, 2)))
        assert data.labels.tolist() == [0, 1, 2, 1, 0]
        assert data.classes == ("0", "1", "2")

    def test_jpeg_pixels_are_those_of_pillow(self, tmp_path: Path) -> None:
        files = [encoded(image, "JPEG") for image in COLOUR]
        data = open_data(str(write_parquet(tmp_path / "a.parquet", files, [0] * 5)))
        expected = np.stack([np.asarray(Image.open(BytesIO(file))) for file in files])
        assert torch.equal(data.images, torch.from_numpy(expected.transpose(0, 3, 1, 2)))

    def test_grey_images_have_one_channel(self, tmp_path: Path) -> None:
        data = open_data(write_parquet(tmp_path / "a.parquet", [encoded(image) for image in GREY], [0] * 5))
        assert torch.equal(data.images, torch.from_numpy(GREY[:, None]))

    @pytest.mark.parametrize("grey_row", [0, 1])
    def test_one_colour_image_gives_all_three_channels(self, tmp_path: Path, grey_row: int) -> None:
        files = [encoded(COLOUR[1])] * 2
        files[grey_row] = encoded(GREY[0])
        images = open_data(write_parquet(tmp_path / "a.parquet", files, [0, 1])).images
        assert torch.equal(images[grey_row], torch.from_numpy(GREY[0]).expand(3, 6, 7))
        assert torch.equal(images[1 - grey_row], torch.from_numpy(COLOUR[1].transpose(2, 0, 1)))

    def test_palette_and_transparency_become_plain_colour(self, tmp_path: Path) -> None:
        palette = Image.fromarray(COLOUR[0]).quantize(4)
        see_through = Image.fromarray(COLOUR[1]).convert("RGBA")
        files = [encoded(palette, transparency=b"\x00\x80"), encoded(see_through)]
        images = open_data(write_parquet(tmp_path / "a.parquet", files, [0, 1])).images
        colours = np.array(palette.convert("RGB"))
        assert torch.equal(images[0], torch.from_numpy(colours.transpose(2, 0, 1)))
        assert torch.equal(images[1], torch.from_numpy(COLOUR[1].transpose(2, 0, 1)))

    def test_classes_have_the_names_of_hugging_face(self, colour_file: Path) -> None:
        names = ["cat", "dog", "frog"]
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = parquet.read_table(colour_file)
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        parquet.write_table(table.replace_schema_metadata(metadata), colour_file)
        assert open_data(colour_file).classes == ("cat", "dog", "frog")

    def test_progress_ends_with_all_images(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", [encoded(GREY[0])] * 1203, [0] * 1203)
        calls: list[tuple[int, int]] = []
        open_data(path, progress=lambda done, total: calls.append((done, total)))
        assert calls == [(500, 1203), (1000, 1203), (1203, 1203)]

    def test_a_missing_column_is_named_with_those_there(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", [encoded(GREY[0])], [0], image="img", label="fine")
        with pytest.raises(DataError, match="has no column 'image' or 'label'; it has img, fine"):
            open_data(path)

    def test_columns_of_another_type_are_named(self, tmp_path: Path) -> None:
        parquet.write_table(arrow.table({"image": ["a.png"], "label": [0.5]}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match="'image' has the type string and 'label' the type double"):
            open_data(tmp_path / "a.parquet")

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"no image", r"The 8 bytes of row 2 of .*\(unknown format\)"),
            (None, "The 0 bytes of row 2"),
            (encoded(COLOUR[0])[:80], "The 80 bytes of row 2"),
            (encoded(RNG.integers(0, 256, (99, 99, 3), dtype=np.uint8), "JPEG")[:999], "truncated"),
        ],
    )
    def test_a_corrupt_image_is_named_by_its_row(
        self, tmp_path: Path, data: bytes | None, reason: str
    ) -> None:
        good = encoded(COLOUR[0])
        path = write_parquet(tmp_path / "a.parquet", [good, good, data, good], [0, 0, 0, 0])
        with pytest.raises(DataError, match=reason):
            open_data(path)

    def test_sixteen_bit_images_are_an_error(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", [encoded(GREY[0].astype(np.uint16))], [0])
        with pytest.raises(DataError, match=r"row 0 .* mode 'I;16', which do not fit into eight bits"):
            open_data(path)

    def test_images_of_different_size_are_an_error(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", [encoded(GREY[0]), encoded(GREY[0].T)], [0, 0])
        with pytest.raises(DataError, match=r"row 1 of .* is 7×6 and those before it are 6×7"):
            open_data(path)

    def test_a_missing_label_is_named_by_its_row(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", [encoded(GREY[0])] * 2, [0, None])
        with pytest.raises(DataError, match=r"Row 1 of .* has no label"):
            open_data(path)

    def test_unlabelled_test_images_are_an_error(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", [encoded(GREY[0])] * 2, [-1, -1])
        with pytest.raises(DataError, match="Row 0 has the label -1"):
            open_data(path)

    def test_no_rows_are_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="There are no images"):
            open_data(write_parquet(tmp_path / "a.parquet", [], []))

    def test_another_file_of_that_name_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"something else")
        with pytest.raises(DataError, match="cannot be read as a parquet file"):
            open_data(tmp_path / "a.parquet")

    def test_a_damaged_page_is_an_error(self, colour_file: Path) -> None:
        content = bytearray(colour_file.read_bytes())
        content[4:200] = bytes(196)
        colour_file.write_bytes(content)
        with pytest.raises(DataError):
            open_data(colour_file)

    @pytest.mark.parametrize(("package", "module"), [("pyarrow", "pyarrow"), ("pillow", "PIL")])
    def test_a_missing_extra_says_what_to_install(
        self, colour_file: Path, monkeypatch: pytest.MonkeyPatch, package: str, module: str
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=rf"needs the package '{package}'(.|\n)*tenfold\[data\]"):
            open_data(colour_file)


class TestFolder:
    def test_classes_are_folders_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        for name, numbers in {"dog": [1, 0], "ant": [2], "empty": []}.items():
            (tmp_path / name).mkdir()
            for number in numbers:
                (tmp_path / name / f"{number}.png").write_bytes(encoded(COLOUR[number]))
        (tmp_path / "dog" / "notes.txt").write_text("not an image")
        (tmp_path / ".cache").mkdir()
        data = open_data(tmp_path)
        assert data.classes == ("ant", "dog", "empty")
        assert data.labels.tolist() == [0, 1, 1]
        assert torch.equal(data.images, torch.from_numpy(COLOUR[[2, 0, 1]].transpose(0, 3, 1, 2)))

    def test_png_jpg_and_jpeg_are_read_in_any_case(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        for name in ("1.png", "2.jpg", "3.JPEG"):
            kind = "PNG" if name.endswith("png") else "JPEG"
            (tmp_path / "a" / name).write_bytes(encoded(COLOUR[0], kind))
        assert len(open_data(tmp_path)) == 3

    def test_a_folder_without_images_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with pytest.raises(DataError, match=r"There are no images in .*holds 1 folders without any"):
            open_data(tmp_path)

    def test_the_current_folder_is_called_by_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "photos").mkdir()
        monkeypatch.chdir(tmp_path / "photos")
        with pytest.raises(DataError, match=r"expected are photos/class_name.*but photos holds 0 folders"):
            open_data(".")

    def test_a_corrupt_image_is_named_by_its_path(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "bad.jpg").write_bytes(b"")
        with pytest.raises(DataError, match=r"The 0 bytes of .*bad\.jpg cannot be decoded"):
            open_data(tmp_path)


class TestNpz:
    @pytest.mark.parametrize(
        ("images", "expected"),
        [
            (GREY, GREY[:, None]),
            (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
            (COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(0, 3, 1, 2)),
            (GREY.astype(np.int64), GREY[:, None]),
            (GREY / 255, GREY[:, None]),
            ((GREY / 255).astype(np.float32), GREY[:, None]),
        ],
        ids=["N×H×W", "N×H×W×C", "N×C×H×W", "int64", "float64", "float32"],
    )
    def test_every_shape_and_type_gives_the_same_bytes(
        self, tmp_path: Path, images: np.ndarray, expected: np.ndarray
    ) -> None:
        np.savez(tmp_path / "a.npz", images=images, labels=np.arange(5, dtype=np.uint8))
        data = open_data(tmp_path / "a.npz")
        assert torch.equal(data.images, torch.from_numpy(expected.copy()))
        assert data.labels.tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("arrays", "problem"),
        [
            ({"x": GREY, "labels": np.arange(5)}, "has no array 'images'; it has x, labels"),
            ({"images": GREY, "labels": np.arange(4)}, "5 images need 5 int64 labels"),
            ({"images": GREY, "labels": np.arange(5) - 2}, "Row 0 has the label -2"),
            ({"images": GREY, "labels": np.arange(5.0)}, "Labels are of type float64"),
            ({"images": GREY * 1.0, "labels": np.arange(5)}, r"must lie in 0\.\.1, but reach from"),
            ({"images": GREY * np.nan, "labels": np.arange(5)}, "reach from nan to nan"),
            ({"images": GREY.astype(int) - 9, "labels": np.arange(5)}, r"must lie in 0\.\.255"),
            ({"images": GREY > 9, "labels": np.arange(5)}, "Images are of type bool"),
            ({"images": COLOUR[..., :2], "labels": np.arange(5)}, "are neither N×C×H×W nor N×H×W×C"),
            ({"images": COLOUR[:, :3], "labels": np.arange(5)}, "could be either N×C×H×W or N×H×W×C"),
            ({"images": GREY[0], "labels": np.arange(6)}, "are neither"),
            ({"images": GREY[:0], "labels": np.arange(0)}, "There are no images"),
            ({"images": np.array([None]), "labels": np.arange(1)}, "not a NumPy archive of plain arrays"),
        ],
    )
    def test_arrays_that_do_not_fit_are_an_error(
        self, tmp_path: Path, arrays: dict[str, np.ndarray], problem: str
    ) -> None:
        np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=problem):
            open_data(tmp_path / "a.npz")

    @pytest.mark.parametrize("content", [b"", b"something else", b"PK\x03\x04 broken"])
    def test_another_file_of_that_name_is_an_error(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(DataError, match="not a NumPy archive"):
            open_data(tmp_path / "a.npz")


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file or folder '.*nowhere\.parquet'"):
        open_data(tmp_path / "nowhere.parquet")


def test_an_unknown_extension_is_an_error_that_names_the_known(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(
        DataError, match=r"ends in '\.csv', which is not known\.\nGive a \.parquet file, an \.npz"
    ):
        open_data(tmp_path / "a.csv")


def test_a_label_beyond_int64_is_an_error(tmp_path: Path) -> None:
    labels = np.array([0, 2**63 + 5], np.uint64)
    np.savez(tmp_path / "a.npz", images=GREY[:2], labels=labels)
    with pytest.raises(DataError, match=r"a\.npz has the label 9223372036854775813, which is no int64"):
        open_data(tmp_path / "a.npz")
    images = [{"bytes": encoded(GREY[0])}] * 2
    parquet.write_table(arrow.table({"image": images, "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"Row 1 of .*a\.parquet has the label 9223372036854775813"):
        open_data(tmp_path / "a.parquet")


def test_a_damaged_compressed_archive_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=GREY, labels=np.arange(5))
    content = bytearray(path.read_bytes())
    content[60:120] = b"\xff" * 60
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz is not a NumPy archive .*\(Error -3 while decompressing"):
        open_data(path)


def test_a_header_of_more_than_memory_is_an_error(tmp_path: Path) -> None:
    header = BytesIO()
    wanted = {"descr": "|u1", "fortran_order": False, "shape": (2**59, 8)}
    np.lib.format.write_array_header_1_0(header, wanted)
    with ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match=r"a\.npz is not a NumPy archive .*\(Unable to allocate"):
        open_data(tmp_path / "a.npz")


def test_what_has_the_name_of_an_image_but_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a" / "1.png").mkdir(parents=True)
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image \(Is a directory\)"):
        open_data(tmp_path)
    (tmp_path / "a" / "0.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"0\.png cannot be read as an image \(No such file"):
        open_data(tmp_path)
