"""Accuracy is the fraction of right answers over all batches."""

import pytest
import torch
from torch import Tensor, nn

from tenfold.core.errors import DataError, ShapeError
from tenfold.measure import accuracy


def answers(predicted: list[int], classes: int = 3) -> Tensor:
    return torch.eye(classes)[predicted]


def test_accuracy_weighs_images_not_batches() -> None:
    batches = [(answers([0, 1, 2]), torch.tensor([0, 1, 2])), (answers([0]), torch.tensor([1]))]
    assert accuracy(nn.Identity(), batches) == 0.75


def test_accuracy_of_pixels_is_over_pixels() -> None:
    outputs = answers([0, 1, 2, 1]).view(1, 2, 2, 3).permute(0, 3, 1, 2)
    assert accuracy(nn.Identity(), [(outputs, torch.tensor([[[0, 1], [2, 2]]]))]) == 0.75


def test_accuracy_is_taken_in_evaluation_mode_which_is_then_restored() -> None:
    model = nn.Sequential(nn.Dropout(1.0), nn.Identity().eval())
    assert accuracy(model, [(answers([1, 2]), torch.tensor([1, 2]))]) == 1.0
    assert [module.training for module in model.modules()] == [True, True, False]


def test_no_batches_are_an_error() -> None:
    with pytest.raises(DataError, match=r"no batches to evaluate on\.\nPass a list or DataLoader"):
        accuracy(nn.Identity(), [])


@pytest.mark.parametrize("outputs", [torch.zeros(4), torch.zeros(2, 3), torch.zeros(4, 3, 2)])
def test_outputs_that_do_not_fit_the_labels_are_an_error(outputs: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"do not fit labels of shape \(4,\)"):
        accuracy(nn.Identity(), [(outputs, torch.zeros(4, dtype=torch.int64))])


@pytest.mark.gpu
def test_batches_move_to_the_model() -> None:
    model = nn.Linear(3, 3).cuda()
    assert 0 <= accuracy(model, [(answers([1, 2]), torch.tensor([1, 2]))]) <= 1


def test_nan_is_never_right() -> None:
    outputs = answers([0, 1, 2, 0])
    outputs[0], outputs[1, 2] = float("nan"), float("nan")
    assert accuracy(nn.Identity(), [(outputs, torch.tensor([0, 2, 2, 0]))]) == 0.5
