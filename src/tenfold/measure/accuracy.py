"""How often a classifier is right."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tenfold.core.errors import DataError, ShapeError
from tenfold.measure.running import device_of, evaluating


def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The fraction, in [0, 1], of inputs whose largest output is their label (top-1).

    `batches` gives (inputs, labels); they are moved to the model's device. Outputs have the shape of the
    labels with the classes as second axis: N×K for labels N. An input with a NaN among its outputs is wrong.

    Raises:
        DataError: if there are no labels.
        ShapeError: if outputs and labels do not fit.

    >>> labels = torch.tensor([0, 1, 1, 1])
    >>> accuracy(nn.Identity(), [(torch.eye(2)[[0, 0, 1, 1]], labels)])
    0.75
    """
    correct, count = 0, 0
    device = device_of(model)
    with evaluating(model):
        for inputs, labels in batches:
            correct += hits(model(inputs.to(device)), labels.to(device))
            count += labels.numel()
    return correct / checked_count(count)


def hits(outputs: Tensor, labels: Tensor) -> int:
    """How many labels are the class of the largest output; none where an output is NaN.

    Raises:
        ShapeError: if outputs and labels do not fit.

    >>> hits(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    1
    """
    if outputs.ndim < 2 or outputs.shape[:1] + outputs.shape[2:] != labels.shape:
        raise ShapeError(
            f"Outputs of shape {tuple(outputs.shape)} do not fit labels of shape {tuple(labels.shape)}.",
            "A classifier gives outputs of shape (N, classes) for labels of shape (N,).",
        )
    largest, classes = outputs.max(1)
    return int(torch.sum((classes == labels) & ~largest.isnan()))


def checked_count(count: int, batches: int = 0) -> int:
    """The number of labels that count, in so many batches; it has to be at least one.

    Raises:
        DataError: if it is zero.

    >>> checked_count(3)
    3
    """
    if count == 0 and batches:
        raise DataError(
            "No label of the data to evaluate on counts: all are -100.",
            "Look at how the labels are padded or masked; those of -100 are left out.",
        )
    if count == 0:
        raise DataError(
            "There are no batches to evaluate on.",
            "Pass a list or DataLoader of (inputs, labels); a generator can be read only once.",
        )
    return count
