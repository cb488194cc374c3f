"""Outputs of models: the tensor that counts, its classes, and the cross-entropy with labels."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from tenfold.compress.recovery.features import at_least_single
from tenfold.core.errors import DataError, ShapeError

IGNORED = -100
"""The label that torch's cross-entropy leaves out."""
SUMMED = 0.02
"""How far probabilities may be from a sum of 1, as they are in bfloat16."""


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


@dataclass
class Classes:
    """Where outputs have their classes: along axis 1, or along the `last`; None as long as no batch showed.

    They are along the last axis if only so the labels fit; without labels, if there are three axes, as in the
    outputs (N, tokens, classes) of a transformer. With as many tokens as classes both fit: then outputs that
    are named have them last, and others as another batch has shown.
    """

    last: bool | None = None

    def second(self, outputs: Any, labels: Tensor | None) -> Tensor:
        """The logits of outputs with their classes along axis 1; `tensor_of` says which tensor they are.

        >>> import torch
        >>> Classes().second(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.int64)).shape
        torch.Size([2, 3, 5])
        """
        logits = tensor_of(outputs)
        if labels is None:
            return logits.movedim(-1, 1) if logits.ndim == 3 else logits
        if logits.ndim < 3 or labels.shape != logits.shape[:-1]:
            self._note(False, logits, labels)
            return logits
        if labels.shape != logits.shape[:1] + logits.shape[2:]:
            self._note(True, logits, labels)
            return logits.movedim(-1, 1)
        named = logits.ndim == 3 and not isinstance(outputs, Tensor)
        if not named and self.last is None:
            warnings.warn(
                f"Outputs of shape {tuple(logits.shape)} fit labels of shape {tuple(labels.shape)} with "
                "classes along axis 1 and along the last one; axis 1 is taken, until another batch shows. "
                "A `forward` that returns {'logits': outputs} says that they are last.",
                UserWarning,
                stacklevel=2,
            )
        return logits.movedim(-1, 1) if named or self.last else logits

    def _note(self, last: bool, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim > 2 and labels.ndim == logits.ndim - 1:
            self.last = last


def counted(labels: Tensor) -> int:
    """How many labels the cross-entropy counts.

    >>> import torch
    >>> counted(torch.tensor([3, -100, 0]))
    2
    """
    return int((labels.long() != IGNORED).sum())


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy in nats, of class numbers or of probabilities for each class; 0 of no labels.

    Raises:
        ShapeError: if logits and labels do not fit.
        DataError: if a label is not the number of a class (noticed on a CPU alone), or numbers are no
            probabilities.

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
        _check_probabilities(labels)
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    try:
        summed = F.cross_entropy(logits, labels.long(), label_smoothing=smoothing, reduction="sum")
    except IndexError as error:
        least, most = int(labels.min()), int(labels.max())
        raise DataError(
            f"Labels lie in {least}..{most}, but there are {logits.shape[1]} classes.",
            "Number the classes from 0, and give the model an output for each.",
        ) from error
    return summed / (labels.long() != IGNORED).sum().clamp_min(1)


def _check_probabilities(labels: Tensor) -> None:
    sums = labels.sum(1)
    odd = ((sums - 1).abs() > SUMMED) & (sums != 0)  # a row of zeros, such as padding, counts nothing
    if labels.shape[1] < 2 or bool((labels < 0).any() | odd.any()):
        raise DataError(
            f"The labels are {labels.dtype} of shape {tuple(labels.shape)}, but no probabilities of classes.",
            "Number the classes by integers, or give a `loss`, such as torch.nn.functional.mse_loss.",
        )
