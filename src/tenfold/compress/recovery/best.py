"""The weights of the lowest validation loss."""

from copy import deepcopy
from math import inf, isfinite
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from tenfold.compress.batches import Batches, parts, tensors
from tenfold.compress.recovery.objective import Judged, Objective
from tenfold.compress.recovery.processes import part, total
from tenfold.core.errors import DataError
from tenfold.measure.accuracy import checked_count
from tenfold.measure.running import device_of, evaluating


class Best:
    """The weights of the lowest validation loss, put back on leaving; without validation data, nothing."""

    def __init__(
        self, model: nn.Module, valid: Batches | None, accelerator: Accelerator, objective: Objective
    ) -> None:
        self.model = model
        self.valid = valid
        self.accelerator = accelerator
        self.objective = objective
        self.number = 0
        self.loss = inf
        self.weights: dict[str, Any] | None = None

    def __enter__(self) -> "Best":
        return self

    def __exit__(self, *_: object) -> None:
        if self.weights is not None:
            self.model.load_state_dict(self.weights)

    def offer(self, number: int) -> tuple[float | None, float | None]:
        """Validation loss and accuracy of the weights as they are, which are kept if they are the best."""
        if self.valid is None:
            return None, None
        loss, accuracy = evaluate(self.model, self.valid, self.accelerator, self.objective)
        if self.weights is None or loss < self.loss:
            self.number, self.weights = number, deepcopy(self.model.state_dict())
            self.loss = loss if isfinite(loss) else inf
        return loss, accuracy

    def age(self, number: int) -> int:
        """Epochs since the lowest loss; none without validation data."""
        return 0 if self.valid is None else number - self.number

    def kept(self, last: int) -> int:
        """The epoch whose weights the model has after leaving."""
        return last if self.valid is None else self.number


def evaluate(
    model: nn.Module, batches: Batches, accelerator: Accelerator, objective: Objective
) -> tuple[float, float | None]:
    """Mean loss, and accuracy if it goes by labels of classes, in one pass, over all processes.

    Raises:
        DataError: if there are no batches, or labels are wanted and missing or all -100, or the loss is not
            a number because the inputs are not finite.
    """
    device = device_of(model)
    by_labels: bool | None = None
    judged = [Judged(0.0, None, 0)]
    with evaluating(model):
        for batch in part(accelerator, batches):
            by_labels = objective.goes_by_labels(batch) if by_labels is None else by_labels
            judged.append(_checked(objective.judged(model, batch, device, by_labels), batch))
    summed, right = sum(one.loss for one in judged), sum(one.right or 0 for one in judged)
    classes = sum(one.right is not None for one in judged)
    losses, hit, counted, classified, batches_seen = total(
        accelerator, summed, right, sum(one.count for one in judged), classes, len(judged) - 1
    )
    return losses / checked_count(int(counted), int(batches_seen)), (hit / counted if classified else None)


def _checked(judged: Judged, batch: Any) -> Judged:
    """A loss that is not finite is the model's fault, unless the inputs are not finite themselves."""
    if isfinite(judged.loss):
        return judged
    for tensor in tensors(parts(batch)[0]):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(
                "Inputs to validate on hold entries that are NaN or infinite.",
                "Look for divisions by zero and missing values in the data.",
            )
    return judged
