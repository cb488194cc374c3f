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


def set_rate(optimizer: torch.optim.Optimizer, lr: float, schedule: Schedule, done: float) -> None:
    """The learning rate when the fraction `done` of the training lies behind.

    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> set_rate(optimizer, 0.1, "cosine", 0.5)
    >>> optimizer.param_groups[0]["lr"]
    0.05
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * SCHEDULES[schedule](done)
