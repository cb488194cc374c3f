"""Which layers may shift their outputs freely, and the bias that undoes a shift."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tenfold.compress.batches import Forward, outputs_of
from tenfold.measure.running import evaluating


def followed_by_norm(model: nn.Module, batch: Any, forward: Forward | None = None) -> dict[str, str]:
    """Modules whose output goes straight into a batch normalisation -> the name of that.

    There a constant added to every channel is subtracted again, so that only deviations from the mean count
    once the statistics are re-estimated.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.ReLU())
    >>> followed_by_norm(net, torch.zeros(1, 3, 8, 8))
    {'0': '1'}
    """
    made: dict[int, str] = {}
    kept: list[Tensor] = []
    found: dict[str, str] = {}

    def remember(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                made[id(output)] = name
                kept.append(output)  # an object that lives keeps its id to itself

        return hook

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and id(args[0]) in made:
                found[made[id(args[0])]] = name

        return hook

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            handles.append(module.register_forward_pre_hook(look(name)))
        elif "weight" in module._parameters:
            handles.append(module.register_forward_hook(remember(name)))
    try:
        with evaluating(model):
            outputs_of(model, batch, forward)
    finally:
        for handle in handles:
            handle.remove()
    return found


def shift_of(change: Tensor, mean: Tensor) -> Tensor:
    """What a change of the weight (outputs, inputs, *taps) adds to the mean of every output.

    `mean` is that of the inputs, over (inputs, *taps) or over the inputs alone.
    """
    outputs, inputs = change.shape[:2]
    flat = change.reshape(outputs, inputs, -1)
    if mean.numel() == inputs:
        return torch.einsum("oit,i->o", flat, mean.to(flat.dtype))
    return flat.reshape(outputs, -1) @ mean.to(flat.dtype)
