"""What training asks of batches: labels where they are needed, and at least one batch."""

from typing import Any

from torch import Tensor

from tenfold.compress.batches import parts
from tenfold.core.errors import DataError


def labels_of(batch: Any) -> Tensor:
    """The labels.

    Raises:
        DataError: if the batch has none, or something else than a tensor.

    >>> import torch
    >>> labels_of(("inputs", torch.tensor([3])))
    tensor([3])
    """
    labels = parts(batch)[1]
    if labels is None:
        raise DataError(
            "The cross-entropy needs labels, but a batch has inputs alone.",
            "Give (inputs, labels), or train with a teacher and Distillation(label_weight=0).",
        )
    if not isinstance(labels, Tensor):
        raise DataError(
            f"The labels of a batch are a {type(labels).__name__}, but the cross-entropy needs a tensor.",
            "Make it one, torch.as_tensor(labels), or give a `loss` that takes them as they are.",
        )
    return labels


def unlabelled(seen: int, purpose: str) -> int:
    """The number of batches seen, which has to be at least one.

    Raises:
        DataError: if it is zero.
    """
    if seen == 0:
        raise DataError(
            f"There are no batches {purpose}.",
            "Pass a list or DataLoader of inputs; a generator can be read only once.",
        )
    return seen
