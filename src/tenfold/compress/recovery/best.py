"""The weights of the lowest validation loss."""

from copy import deepcopy
from math import inf, isfinite
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

from tenfold.compress.recovery.batches import Batches, inputs_of, labels_of
from tenfold.compress.recovery.processes import part, total
from tenfold.measure.accuracy import checked_count, hits
from tenfold.measure.running import device_of, evaluating


class Best:
    """The weights of the lowest validation loss, put back on leaving; without validation data, nothing."""

    def __init__(self, model: nn.Module, valid: Batches | None, accelerator: Accelerator) -> None:
        self.model = model
        self.valid = valid
        self.accelerator = accelerator
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
        loss, accuracy = evaluate(self.model, self.valid, self.accelerator)
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


def evaluate(model: nn.Module, batches: Batches, accelerator: Accelerator) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, in one pass, over all processes."""
    summed, correct, count = 0.0, 0, 0
    device = device_of(model)
    with evaluating(model):
        for batch in part(accelerator, batches):
            outputs, labels = model(inputs_of(batch).to(device)), labels_of(batch).to(device)
            summed += F.cross_entropy(outputs, labels, reduction="sum").item()
            correct += hits(outputs, labels)
            count += labels.numel()
    losses, right, labelled = total(accelerator, summed, correct, count)
    return losses / checked_count(int(labelled)), right / labelled
