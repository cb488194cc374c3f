"""What tuning tells: one entry an epoch, and how it ended."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training data gave.

    `train_loss` is the mean of what was minimised, `valid_loss` the mean cross-entropy in nats, or of the
    loss that took its place; `valid_accuracy` is a fraction, None where there are no classes.
    """

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
