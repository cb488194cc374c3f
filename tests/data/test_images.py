"""Labelled images: normalized, split, batched, checked."""

import sys

import pytest
import torch
from torch import Tensor

from tenfold.core.errors import DataError, MissingExtraError, OptionError
from tenfold.data import ImageData, digits


def numbered(count: int = 10, channels: int = 3) -> ImageData:
    """Random images; the label of each is its number."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, 4, 5), generator=generator, dtype=torch.uint8)
    return ImageData(images, torch.arange(count))


def read(data: ImageData, size: int = 4, **options: object) -> tuple[Tensor, Tensor]:
    batches = list(data.batches(size, **options))  # type: ignore[arg-type]
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def test_classes_without_names_are_numbers_up_to_the_largest_label() -> None:
    assert ImageData(numbered(3).images, torch.tensor([0, 4, 0])).classes == ("0", "1", "2", "3", "4")


def test_inputs_are_pixels_over_255_until_normalized() -> None:
    data = numbered()
    inputs, labels = read(data)
    assert torch.equal(inputs, data.images / 255)
    assert inputs.dtype == torch.float32
    assert torch.equal(labels, data.labels)


def test_normalized_inputs_have_mean_0_and_std_1_in_every_channel() -> None:
    inputs, _ = read(numbered(50).normalized())
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_normalized_with_given_numbers_subtracts_and_divides() -> None:
    data = numbered().normalized((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    mean, std = (torch.tensor(scale).view(3, 1, 1) for scale in (data.mean, data.std))
    torch.testing.assert_close(read(data)[0], (data.images / 255 - mean) / std)


def test_normalizing_with_a_given_mean_computes_the_std_only() -> None:
    data = numbered()
    assert data.normalized(mean=[0.5]).mean == (0.5,)
    assert data.normalized(mean=[0.5]).std == data.normalized().std


def test_a_constant_channel_is_divided_by_one() -> None:
    data = ImageData(torch.full((2, 1, 2, 2), 51, dtype=torch.uint8), torch.tensor([0, 1])).normalized()
    assert data.std == (1.0,)
    assert data.mean == pytest.approx((0.2,))


BAD_SCALES = [
    ((0.1, 0.2), (1.0,)),
    ((0.0,), (0.0,)),
    ((0.0,), (-1.0,)),
    ((float("nan"),), (1.0,)),
    ((0.0,), (float("inf"),)),
    ((float("-inf"),), (1.0,)),
]


@pytest.mark.parametrize(("mean", "std"), BAD_SCALES)
def test_numbers_that_cannot_normalize_are_named(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match=r"Images of 3 channels cannot be normalized with mean=\("):
        numbered().normalized(mean, std)


@pytest.mark.parametrize(
    ("channels", "remedy"), [(1, "Give one finite number each"), (3, "Give 1 or 3 finite numbers each")]
)
def test_the_remedy_says_how_many_numbers(channels: int, remedy: str) -> None:
    with pytest.raises(OptionError) as caught:
        numbered(channels=channels).normalized((0.0, 0.0), (1.0, 1.0))
    assert remedy in caught.value.remedy


def test_a_split_keeps_every_image_once() -> None:
    first, second = numbered().split(0.7, seed=1)
    assert (len(first), len(second)) == (7, 3)
    assert sorted([*first.labels.tolist(), *second.labels.tolist()]) == list(range(10))
    assert torch.equal(first.images, numbered().images[first.labels])


def test_a_split_keeps_classes_and_normalization() -> None:
    data = numbered().normalized()
    for part in data.split(0.5):
        assert (part.classes, part.mean, part.std) == (data.classes, data.mean, data.std)


def test_the_same_seed_gives_the_same_split() -> None:
    one, same, other = (numbered(100).split(0.5, seed=seed)[0].labels for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 0.01])
def test_a_split_that_leaves_a_part_empty_is_an_error(fraction: float) -> None:
    with pytest.raises(OptionError, match=f"10 images at the fraction {fraction} leaves one part empty"):
        numbered().split(fraction)


def test_batches_count_the_last_smaller_one() -> None:
    batches = numbered().batches(4)
    assert len(batches) == 3
    assert [len(labels) for _, labels in batches] == [4, 4, 2]


def test_shuffled_batches_hold_every_image_once_with_its_label() -> None:
    data = numbered()
    inputs, labels = read(data, shuffle=True)
    assert sorted(labels.tolist()) == list(range(10))
    assert torch.equal(inputs, data.images[labels] / 255)


def test_shuffling_differs_between_readings_and_agrees_between_seeds() -> None:
    batches = numbered(50).batches(50, shuffle=True, generator=torch.Generator().manual_seed(0))
    again = numbered(50).batches(50, shuffle=True, generator=torch.Generator().manual_seed(0))
    (first,), (second,), (repeated,) = ([labels for _, labels in part] for part in (batches, batches, again))
    assert not torch.equal(first, second)
    assert torch.equal(first, repeated)


def test_a_batch_of_no_images_is_an_error() -> None:
    with pytest.raises(OptionError, match="A batch needs size >= 1, got 0"):
        numbered().batches(0)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (torch.arange(9), "10 images need 10 int64 labels"),
        (torch.arange(10).float(), "the labels are torch.float32"),
        (torch.arange(10) - 1, "Row 0 has the label -1, outside 0..99999 "),
        (torch.arange(10) * 50_000, r"Row 2 has the label 100000, .* \(8 rows in all\)"),
    ],
)
def test_labels_that_do_not_fit_the_images_are_an_error(labels: Tensor, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        ImageData(numbered().images, labels)


def test_a_label_beyond_the_named_classes_is_an_error() -> None:
    with pytest.raises(DataError, match=r"Row 2 has the label 2, outside 0\.\.1"):
        ImageData(numbered(3).images, torch.arange(3), ("cat", "dog"))


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (torch.zeros(2, 3, 4, 4), "must be uint8 of shape N×C×H×W, but are torch.float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), r"of shape \(2, 4, 4\)"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), "There are no images"),
    ],
)
def test_images_of_another_kind_are_an_error(images: Tensor, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        ImageData(images, torch.zeros(len(images), dtype=torch.int64))


def test_digits_are_the_same_each_time_and_use_all_levels() -> None:
    (train, test), (again, _) = digits(), digits()
    assert torch.equal(train.images, again.images)
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)
    assert test.labels.bincount().min() >= 20
    assert train.labels.bincount().min() >= 120


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[demo\]'"):
        digits()
