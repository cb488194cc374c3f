"""Steps of the optimizer: matrices by their directions alone, all else by Adam."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class Directions(torch.optim.Optimizer):
    """Muon for matrices, whose step is the momentum with all singular values set alike; Adam for vectors.

    A few directions carry most of the energy of what layers see; Adam, which scales entry by entry, moves
    little along the others. A step of Muon is made as long as one of Adam at the same rate, so that one
    learning rate serves both. Needs torch 2.9.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the length: Liu et
    al. 2025, arXiv:2502.16982.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        given = list(parameters)
        super().__init__(given, {"lr": lr})
        matrices, others = [p for p in given if p.ndim == 2], [p for p in given if p.ndim != 2]
        self.parts = (
            torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.Adam(others, lr=lr, weight_decay=weight_decay),
        )
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:  # type: ignore[override]
        """One step of each; gradients are there already, so there is no closure to call."""
        for part in self.parts:
            part.step()
