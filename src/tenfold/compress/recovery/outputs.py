"""Outputs of models: the tensor that counts, its classes, and the cross-entropy with labels."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from tenfold.compress.recovery.features import at_least_single
from tenfold.core.errors import DataError, ShapeError

IGNORED = -100
"""The label that torch's cross-entropy leaves out."""


def tensor_of(outputs: Any) -> Tensor:
    """The logits, if the outputs are named and have some; else the first tensor. In float32 at least.

    Raises:
        ShapeError: if there is no tensor.

    >>> import torch
    >>> tensor_of({"loss": torch.zeros(()), "logits": torch.ones(2, 3)}).shape
    torch.Size([2, 3])
    """
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs["logits"] if "logits" in outputs else next(iter(outputs.values()), None)
    elif not isinstance(outputs, Tensor):
        found = getattr(outputs, "logits", outputs)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        raise ShapeError(
            f"The model returns {type(outputs).__name__}, in which no tensor comes first.",
            "Give a `forward`, called as forward(model, batch), that returns what counts.",
        )
    return at_least_single(found)


def classes_second(logits: Tensor, labels: Tensor | None) -> Tensor:
    """Logits with their classes along axis 1.

    They are along the last axis if only so the labels fit; without labels, if there are three axes, as in the
    outputs (N, tokens, classes) of a transformer.

    >>> import torch
    >>> classes_second(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 3, 5])
    """
    if labels is None:
        return logits.movedim(-1, 1) if logits.ndim == 3 else logits
    fits = labels.shape == logits.shape[:1] + logits.shape[2:]
    last = logits.ndim > 2 and labels.shape == logits.shape[:-1] and not fits
    return logits.movedim(-1, 1) if last else logits


def counted(labels: Tensor) -> int:
    """How many labels the cross-entropy counts.

    >>> import torch
    >>> counted(torch.tensor([3, -100, 0]))
    2
    """
    return int((labels != IGNORED).sum())


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy in nats, of class numbers or of probabilities for each class; 0 of no labels.

    Raises:
        ShapeError: if logits and labels do not fit.
        DataError: if a label is not the number of a class (noticed on a CPU alone).

    >>> import torch
    >>> round(cross_entropy(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
    0.6931
    """
    numbers = not labels.is_floating_point()
    fits = labels.shape == (logits.shape[:1] + logits.shape[2:] if numbers else logits.shape)
    if logits.ndim < 2 or not fits:
        raise ShapeError(
            f"Outputs of shape {tuple(logits.shape)} do not fit labels of shape {tuple(labels.shape)}.",
            "A classifier gives outputs of shape (N, classes) for labels of shape (N,); else give a `loss`.",
        )
    if not numbers:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    try:
        summed = F.cross_entropy(logits, labels.long(), label_smoothing=smoothing, reduction="sum")
    except IndexError as error:
        least, most = int(labels.min()), int(labels.max())
        raise DataError(
            f"Labels lie in {least}..{most}, but there are {logits.shape[1]} classes.",
            "Number the classes from 0, and give the model an output for each.",
        ) from error
    return summed / (labels != IGNORED).sum().clamp_min(1)
