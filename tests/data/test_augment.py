"""Shifted and mirrored images are parts of the framed original, drawn from the generator."""

import pytest
import torch
from torch.nn import functional as F

from tenfold.core.errors import OptionError
from tenfold.data.augment import Augmented


def images(count: int = 50) -> torch.Tensor:
    return torch.rand(count, 2, 5, 4, generator=torch.Generator().manual_seed(1)) + 1


def drawn(seed: int, **options: object) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    batches = Augmented([(images(), torch.arange(50))], generator=generator, **options)  # type: ignore[arg-type]
    ((out, labels),) = batches
    assert torch.equal(labels, torch.arange(50))
    return out


def test_every_image_is_a_window_of_its_framed_original_or_mirrored() -> None:
    framed = F.pad(images(), (2, 2, 2, 2))
    windows = framed.unfold(2, 5, 1).unfold(3, 4, 1).flatten(2, 3).movedim(2, 1)
    out = drawn(0, shift=2)[:, None]
    direct = (windows == out).flatten(2).all(2).any(1)
    mirrored = (windows == out.flip(4)).flatten(2).all(2).any(1)
    assert bool((direct | mirrored).all()) and 10 < int(direct.sum()) < 40


def test_nothing_is_drawn_without_shift_and_mirror() -> None:
    assert torch.equal(drawn(0, shift=0, mirror=False), images())


def test_the_seed_decides_and_every_reading_draws_anew() -> None:
    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))
    batches = Augmented([(images(), torch.arange(50))], generator=torch.Generator().manual_seed(0))
    assert len(batches) == 1
    assert not torch.equal(next(iter(batches))[0], next(iter(batches))[0])


def test_a_negative_shift_is_an_error() -> None:
    with pytest.raises(OptionError, match="up to -1 pixels"):
        Augmented([], shift=-1)
