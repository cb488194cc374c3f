"""What one batch may be: inputs alone, or inputs with labels."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from tenfold.core.errors import DataError
from tenfold.measure.running import device_of

Batch = Tensor | Sequence[Tensor]
Batches = Iterable[Batch]
Forward = Callable[[nn.Module, Any], object]
"""Calls a model with one batch, for models that take more than one tensor of inputs."""


def inputs_of(batch: Batch) -> Tensor:
    """The inputs, which may be all there is.

    >>> import torch
    >>> inputs_of(torch.ones(2)).shape, inputs_of((torch.ones(3), torch.tensor(0))).shape
    (torch.Size([2]), torch.Size([3]))
    """
    return batch if isinstance(batch, Tensor) else batch[0]


def labels_of(batch: Batch) -> Tensor:
    """The labels.

    Raises:
        DataError: if the batch has none.
    """
    if isinstance(batch, Tensor) or len(batch) < 2:
        raise DataError(
            "The cross-entropy needs labels, but a batch has inputs alone.",
            "Give (inputs, labels), or train with a teacher and Distillation(label_weight=0).",
        )
    return batch[1]


def forward_inputs(model: nn.Module, batch: Batch) -> object:
    """Run the model on the inputs of a batch, brought to its device; the usual `forward`."""
    return model(inputs_of(batch).to(device_of(model)))


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
