"""How the learning rate changes from epoch to epoch."""

from collections.abc import Callable
from math import cos, pi
from typing import Literal

import torch

Schedule = Literal["constant", "cosine"]
SCHEDULES: dict[Schedule, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + cos(pi * done)),
}


def set_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, done: float) -> None:
    """The learning rates when the fraction `done` of the training lies behind, from those of the beginning.

    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> set_rate(optimizer, "cosine", 0.5)
    >>> optimizer.param_groups[0]["lr"]
    0.05
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * SCHEDULES[schedule](done)
