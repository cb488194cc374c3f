"""Where the output of a layer is added to something else, such as the residual stream of a transformer."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.batches import Forward, outputs_of
from tenfold.compress.calibration.ramps import closeness
from tenfold.measure.running import evaluating


def received_by(
    model: nn.Module, layers: Iterable[str], batch: Any, forward: Forward | None = None
) -> dict[str, str]:
    """Layer -> the module whose input is the layer's output plus something else, where there is one.

    Found by trying: a random change of the output must appear, as it is, in the module's first input, which
    is not the output alone. Of several modules it is the first. The model runs once for every layer.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.body, self.drop, self.norm = nn.Linear(4, 4), nn.Dropout(), nn.LayerNorm(4)
    ...
    ...     def forward(self, x):
    ...         return self.norm(x + self.drop(self.body(x)))
    >>> received_by(Block(), ["body"], torch.randn(3, 4))
    {'body': 'norm'}
    """
    found: dict[str, str] = {}
    with evaluating(model):
        inputs, outputs = _seen(model, batch, forward)
        for name in layers:
            if name in outputs and (module := _receiver(model, name, inputs, outputs[name], batch, forward)):
                found[name] = module
    return found


def _receiver(
    model: nn.Module,
    name: str,
    inputs: Mapping[str, Tensor],
    output: Tensor,
    batch: Any,
    forward: Forward | None,
) -> str | None:
    if not output.numel():
        return None
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(output.shape, generator=generator).to(output)
    change = drawn * output.std().clamp_min(torch.finfo(output.dtype).tiny)
    with _changed(model.get_submodule(name), change):
        moved, _ = _seen(model, batch, forward)
    for module, before in inputs.items():
        same = before.shape == output.shape and module in moved
        if same and _near(moved[module] - before, change) and not _near(before, output):
            return module
    return None


def _near(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= closeness(b) * b.norm())


def _seen(
    model: nn.Module, batch: Any, forward: Forward | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """First inputs and outputs of the modules that are called once with one tensor, in order of the calls."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def before(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            counts[name] = counts.get(name, 0) + 1
            if len(args) == 1 and isinstance(args[0], Tensor):
                inputs[name] = args[0].clone()

        return hook

    def after(name: str) -> Any:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs[name] = output.clone()

        return hook

    handles = []
    for name, module in model.named_modules():
        if name and not list(module.children()):
            handles += [
                module.register_forward_pre_hook(before(name)),
                module.register_forward_hook(after(name)),
            ]
    try:
        outputs_of(model, batch, forward)
    finally:
        for handle in handles:
            handle.remove()
    once = {name for name, count in counts.items() if count == 1}
    return ({n: x for n, x in inputs.items() if n in once}, {n: y for n, y in outputs.items() if n in once})


@contextmanager
def _changed(layer: nn.Module, change: Tensor) -> Iterator[None]:
    """Until left, the layer gives `change` more."""
    handle = layer.register_forward_hook(lambda _, args, output: output + change)
    try:
        yield
    finally:
        handle.remove()
