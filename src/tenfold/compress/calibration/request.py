"""What is asked of calibration: statistics, how many samples, which loss."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tenfold.compress.calibration.observers import observers
from tenfold.compress.calibration.targets import (
    gaussian_loss,
    labelled_loss,
    logits_of,
    numbers_of,
    sampled_loss,
)
from tenfold.compress.calibration.watching import Run
from tenfold.core.errors import DataError, OptionError

LOSSES = ("labels", "sampled", "gaussian")
Loss = Callable[[Any, Any], Tensor]
"""loss(outputs, labels): the sum, not the mean, over the samples of a batch; labels may be None."""


def named(want: str | Iterable[str]) -> frozenset[str]:
    """The names of statistics; one may come without a set around it."""
    return frozenset((want,) if isinstance(want, str) else want)


@dataclass(frozen=True)
class Request:
    """The options of `collect`, checked."""

    want: frozenset[str]
    samples: int | None
    loss: Loss | str | None
    max_patch: int
    max_bytes: int
    seed: int
    positions: int | None = None
    microbatch: int | None = None

    def __post_init__(self) -> None:
        for name in self.want:
            observers[name]
        if not self.want:
            raise OptionError("`want` names no statistic.", f"Choose of {', '.join(observers)}.")
        if self.samples is not None and self.samples < 1:
            raise OptionError(f"samples came as {self.samples}.", "Give 1 or more, or None for all.")
        if isinstance(self.loss, str) and self.loss not in LOSSES:
            known = ", ".join(f'"{name}"' for name in LOSSES)
            raise OptionError(f"loss came as '{self.loss}'.", f"Give {known} or a function.")
        if self.max_patch < 1 or self.max_bytes < 1:
            raise OptionError(
                f"max_patch and max_bytes came as {self.max_patch} and {self.max_bytes}.", "Give 1 or more."
            )
        if self.positions is not None and self.positions < 1:
            raise OptionError(f"positions came as {self.positions}.", "Give 1 or more, or None for all.")
        if self.microbatch is not None and self.microbatch < 1:
            raise OptionError(
                f"microbatch came as {self.microbatch}.", "Give 1 or more, or None for whole batches."
            )

    @property
    def backward(self) -> bool:
        """Whether the loss gradients are needed."""
        return any(observers[name].backward for name in self.want)

    def options(self) -> dict[str, Any]:
        """What changes the numbers besides weights and data."""
        loss = "own" if callable(self.loss) else self.loss
        return {
            "samples": self.samples,
            "loss": loss,
            "max_patch": self.max_patch,
            "seed": self.seed,
            "positions": self.positions,
        }

    def loss_of(self, outputs: Any, labels: Any, state: Run) -> Tensor:
        """The loss of a batch, summed over its samples."""
        if callable(self.loss):
            return self.loss(outputs, labels)
        if self.loss == "labels" and labels is None:
            raise DataError('loss="labels" needs labels, but a batch has none.', "Give (inputs, labels).")
        if self.loss == "gaussian":
            values = numbers_of(outputs)
            return gaussian_loss(values, state.generator(values.device))
        logits = logits_of(outputs)
        if labels is None or self.loss == "sampled":
            return sampled_loss(logits, state.generator(logits.device))
        return labelled_loss(logits, labels)
