"""Parameters and bytes."""

import torch
from torch import nn

from tenfold.measure import nbytes, parameters


def test_tied_parameters_count_once() -> None:
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    assert parameters(nn.Sequential(first, second)) == 60
    second.weight = first.weight
    assert parameters(nn.Sequential(first, second)) == 35
    assert nbytes(nn.Sequential(first, second)) == 140


def test_frozen_parameters_count() -> None:
    assert parameters(nn.Linear(5, 5).requires_grad_(False)) == 30


def test_bytes_are_those_of_parameters_and_buffers_in_their_dtype() -> None:
    assert nbytes(nn.BatchNorm2d(8)) == 4 * 8 * 4 + 8
    assert nbytes(nn.Linear(8, 8).to(torch.bfloat16)) == 72 * 2


def test_sizes_are_known_on_the_meta_device() -> None:
    assert (parameters(nn.Linear(8, 8, device="meta")), nbytes(nn.Linear(8, 8, device="meta"))) == (72, 288)


def test_a_model_without_parameters_has_size_0() -> None:
    assert (parameters(nn.ReLU()), nbytes(nn.ReLU())) == (0, 0)
