"""Training a model on labelled batches: fine-tuning after compression, and the dense baseline before it."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from math import cos, inf, isfinite, pi
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.core.errors import DataError, DivergedError, ModelError, OptionError
from tenfold.measure.accuracy import checked_count, hits
from tenfold.measure.running import device_of, evaluating, keeping_mode

Batches = Iterable[tuple[Tensor, Tensor]]
Schedule = Literal["constant", "cosine"]
SCHEDULES: dict[Schedule, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + cos(pi * done)),
}


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training data gave; the loss is the mean cross-entropy in nats."""

    number: int
    train_loss: float
    valid_loss: float | None
    valid_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """How training went; `best` is the epoch whose weights were kept, 0 for those at the start."""

    trace: tuple[Epoch, ...]
    best: int
    stopped_early: bool


def tune(
    model: nn.Module,
    train: Batches,
    valid: Batches | None = None,
    *,
    epochs: int,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    schedule: Schedule = "constant",
    patience: int | None = 3,
    progress: Callable[[Epoch], object] | None = None,
) -> Tuned:
    """Train `model` in place with the cross-entropy, on the device where it is.

    `train` and `valid` give (inputs, labels) and are read once an epoch: a list or a DataLoader, not a
    generator. With `valid`, the weights of the lowest validation loss come back, so tuning never raises it:
    the weights at the start count too. Training stops after `patience` epochs without a new lowest loss
    (`None`: never). Without `valid`, the last weights stay. The whole model trains: layers which were in
    evaluation mode are in training mode meanwhile; to freeze parameters, turn off their `requires_grad`.

    Args:
        optimizer: called as `optimizer(parameters, lr=lr, weight_decay=weight_decay)`: a class of
            `torch.optim`, or `partial(torch.optim.SGD, momentum=0.9)`.
        schedule: the learning rate, "constant" or falling to zero as half a "cosine", changed once an epoch.
        progress: called with each `Epoch` when it is done.

    Raises:
        OptionError: for an option outside its range.
        ModelError: if no parameter is trainable.
        DataError: if `train` or `valid` gives no batches.
        DivergedError: if the training loss is not finite; the best weights so far stay.

    >>> _ = torch.manual_seed(0)
    >>> inputs = torch.randn(64, 2)
    >>> batches = [(inputs, (inputs[:, 0] > 0).long())]
    >>> tuned = tune(nn.Linear(2, 2), batches, batches, epochs=50, lr=0.1)
    >>> tuned.trace[-1].valid_accuracy > 0.95
    True
    """
    _check(epochs, lr, weight_decay, schedule, patience)
    if epochs == 0:
        return Tuned((), 0, False)
    stepper = optimizer(_trainable(model), lr=lr, weight_decay=weight_decay)
    with keeping_mode(model), _Best(model, valid) as best:
        trace: list[Epoch] = []
        for number in range(1, epochs + 1):
            _set_rate(stepper, lr * SCHEDULES[schedule]((number - 1) / epochs))
            trace.append(_epoch(model, train, best, stepper, number))
            if progress is not None:
                progress(trace[-1])
            if best.age(number) == patience:
                break
    return Tuned(tuple(trace), best.kept(len(trace)), len(trace) < epochs)


def _epoch(
    model: nn.Module, train: Batches, best: "_Best", stepper: torch.optim.Optimizer, number: int
) -> Epoch:
    start = perf_counter()
    train_loss = _pass(model, train, stepper, number)
    valid_loss, valid_accuracy = best.offer(number)
    return Epoch(number, train_loss, valid_loss, valid_accuracy, perf_counter() - start)


def _pass(model: nn.Module, train: Batches, stepper: torch.optim.Optimizer, number: int) -> float:
    """One step a batch; the mean loss over all labels."""
    total, count = 0.0, 0
    device = device_of(model)
    model.train()
    for inputs, labels in train:
        loss = F.cross_entropy(model(inputs.to(device)), labels.to(device))
        value = _finite(loss.item(), number)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        total, count = total + value * labels.numel(), count + labels.numel()
    return total / _trained(count, number)


class _Best:
    """The weights of the lowest validation loss, put back on leaving; without validation data, nothing."""

    def __init__(self, model: nn.Module, valid: Batches | None) -> None:
        self.model = model
        self.valid = valid
        self.number = 0
        self.loss = inf
        self.weights: dict[str, Any] | None = None

    def __enter__(self) -> "_Best":
        self.offer(0)
        return self

    def __exit__(self, *_: object) -> None:
        if self.weights is not None:
            self.model.load_state_dict(self.weights)

    def offer(self, number: int) -> tuple[float | None, float | None]:
        """Validation loss and accuracy of the weights as they are, which are kept if they are the best."""
        if self.valid is None:
            return None, None
        loss, accuracy = _evaluate(self.model, self.valid)
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


def _evaluate(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, in one pass."""
    total, correct, count = 0.0, 0, 0
    device = device_of(model)
    with evaluating(model):
        for inputs, labels in batches:
            outputs, targets = model(inputs.to(device)), labels.to(device)
            total += F.cross_entropy(outputs, targets, reduction="sum").item()
            correct += hits(outputs, targets)
            count += labels.numel()
    return total / checked_count(count), correct / count


def _set_rate(stepper: torch.optim.Optimizer, lr: float) -> None:
    for group in stepper.param_groups:
        group["lr"] = lr


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError(
            f"{type(model).__name__} has no parameter to train.",
            "Set requires_grad of those that shall be tuned: model.requires_grad_(True) is all of them.",
        )
    return parameters


def _finite(loss: float, number: int) -> float:
    if not isfinite(loss):
        raise DivergedError(
            f"The training loss became {loss} in epoch {number}.",
            "Use a smaller learning rate (lr), and check that the inputs are finite and normalized.",
        )
    return loss


def _trained(count: int, number: int) -> int:
    if count == 0:
        raise DataError(
            f"The training data gave no batches in epoch {number}.",
            "Pass a list or DataLoader of (inputs, labels); a generator can be read only once.",
        )
    return count


def _check(epochs: int, lr: float, weight_decay: float, schedule: str, patience: int | None) -> None:
    ranges = {
        f"epochs >= 0, got {epochs}": epochs >= 0,
        f"a finite lr > 0, got {lr}": 0 < lr < inf,
        f"a finite weight_decay >= 0, got {weight_decay}": 0 <= weight_decay < inf,
        f"patience >= 1 or None, got {patience}": patience is None or patience >= 1,
        f"a schedule of {' or '.join(SCHEDULES)}, got '{schedule}'": schedule in SCHEDULES,
    }
    for wanted, met in ranges.items():
        if not met:
            raise OptionError(f"Tuning needs {wanted}.", "The docstring of tune says what each option does.")
