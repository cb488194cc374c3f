"""The penalty that draws weights towards others while they train."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Pull:
    """strength / 2 · Σ ‖W - target‖², called with the model: what `tune` takes as `penalty`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> Pull({"weight": torch.zeros(1, 2)}, strength=3.0)(model).item()
    3.0
    """

    targets: Mapping[str, Tensor]
    strength: float

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty, differentiable; 0 if nothing is drawn."""
        squares = [self._square(model.get_parameter(name), t) for name, t in self.targets.items()]
        if not squares:
            return next(model.parameters()).new_zeros(())
        return 0.5 * self.strength * torch.stack(squares).sum()

    @staticmethod
    def _square(weight: Tensor, target: Tensor) -> Tensor:
        apart = weight - target.to(weight)
        return (apart * apart.conj()).real.sum()
