"""Which layers end in a ReLU: it alone sees their outputs, which may be scaled, shifted, added to others."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tenfold.compress.batches import Forward, outputs_of, tensors
from tenfold.compress.calibration.patches import order_of
from tenfold.measure.running import evaluating
from tenfold.nn import FactorizedConv

CLOSE = 1e-3
RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


@dataclass(frozen=True)
class Ramp:
    """The ReLU behind a layer: its number among those of a pass, from 0, and the slope a of every output y of
    the layer: what comes to the ReLU is a·y + what does not depend on the layer."""

    number: int
    slope: Tensor

    def is_like(self, other: "Ramp | None") -> bool:
        """Whether the other is of the same ReLU, with nearly the same slope."""
        if other is None or other.number != self.number:
            return False
        return bool((other.slope - self.slope).norm() <= 10 * closeness(self.slope) * self.slope.norm())


class Relus(TorchDispatchMode):
    """While entered, `before(number, x)` is called before every ReLU of the thread, however it is written."""

    def __init__(self, before: Callable[[int, Tensor], object]) -> None:
        super().__init__()
        self.before, self.count = before, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RELUS:
            self.before(self.count, args[0])
            self.count += 1
        return func(*args, **(kwargs or {}))


def ramps_behind(
    model: nn.Module, layers: Sequence[str], batch: Any, forward: Forward | None = None
) -> dict[str, Ramp]:
    """Layer -> the ReLU behind it, where there is one and no other of the layers is called before it.

    What comes to the ReLU may be normalised by fixed statistics, scaled and shifted by channel, and added to
    other things, such as the shortcut of a residual block; nothing else may look at it. The slopes are found
    by trying a random change of the layer's output. The model runs once, and once for every layer found.

    >>> net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 4, 1))
    >>> net[1].weight.data.mul_(3.0)
    tensor([3., 3.])
    >>> ramps_behind(net, ["0", "3"], torch.randn(2, 3, 5, 5))
    {'0': Ramp(number=0, slope=tensor([3.0000, 3.0000]))}
    """
    with evaluating(model):
        trace = _Trace(layers)
        with trace.watching(model), trace:
            trace.end(outputs_of(model, batch, forward))
        found = {name: number for name in layers if (number := trace.relu_behind(name)) is not None}
        slopes = {name: _slope(model, name, trace, number, batch, forward) for name, number in found.items()}
    return {name: Ramp(found[name], slope) for name, slope in slopes.items() if slope is not None}


def common_ramps(
    models: Sequence[nn.Module], layers: Sequence[str], batches: Sequence[Any], forward: Forward | None = None
) -> dict[str, Ramp]:
    """Those of the first model on the first batch that all have on all, with the same slopes.

    They have not if, say, the variances of a batch norm on the way were estimated anew, or a gate that the
    batch itself sets is on the way.
    """
    found, *others = (ramps_behind(m, layers, batch, forward) for m in models for batch in batches)
    return {name: ramp for name, ramp in found.items() if all(ramp.is_like(o.get(name)) for o in others)}


@dataclass
class _Step:
    """What one operation read and made, by the numbers of objects that are kept; which ReLU it is."""

    read: frozenset[int]
    made: tuple[int, ...]
    relu: int | None = None


class _Trace(TorchDispatchMode):
    """All operations of a pass in order, and what the layers made. Tensors live on, so each keeps its id."""

    def __init__(self, layers: Iterable[str]) -> None:
        super().__init__()
        self.layers = frozenset(layers)
        self.steps: list[_Step] = []
        self.calls: list[int] = []
        self.outputs: dict[str, tuple[int, Tensor]] = {}
        self.inputs: list[Tensor] = []
        self.kept: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        relu = func in RELUS
        if relu:
            self.inputs.append(args[0].clone())
        result = func(*args, **(kwargs or {}))
        read = [*tensors([*args, *(kwargs or {}).values()])]
        made = [*tensors([result])]
        self.kept += read + made
        number = len(self.inputs) - 1 if relu else None
        self.steps.append(_Step(frozenset(map(id, read)), tuple(map(id, made)), number))
        return result

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Until left, note where the layers are called and what they make."""
        handles = []
        for name in self.layers:
            layer = model.get_submodule(name)
            handles.append(layer.register_forward_pre_hook(lambda *_: self.calls.append(len(self.steps))))
            handles.append(layer.register_forward_hook(self._made(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _made(self, name: str) -> Any:
        def hook(_: nn.Module, args: Any, output: Tensor) -> None:
            self.outputs[name] = len(self.steps), output

        return hook

    def end(self, outputs: Any) -> None:
        """What the model returns has been looked at, too."""
        self.steps.append(_Step(frozenset(map(id, tensors([outputs]))), ()))

    def relu_behind(self, name: str) -> int | None:
        """The number of the ReLU at the end of a chain of values that each go into the next one alone."""
        if name not in self.outputs:
            return None
        start, output = self.outputs[name]
        at, value = start, id(output)
        while (step := self._reader(at, value)) is not None:
            if self.steps[step].relu is not None:
                alone = not any(start <= call <= step for call in self.calls)
                return self.steps[step].relu if alone else None
            if not self.steps[step].made:
                return None
            at, value = step + 1, self.steps[step].made[0]
        return None

    def _reader(self, at: int, value: int) -> int | None:
        """The only operation from `at` on that reads a value; one in place makes another of the same id."""
        readers = [k for k in range(at, len(self.steps)) if value in self.steps[k].read]
        alone = len(readers) == 1 or (readers and value in self.steps[readers[0]].made)
        return readers[0] if alone else None


def _slope(
    model: nn.Module, name: str, trace: _Trace, number: int, batch: Any, forward: Forward | None
) -> Tensor | None:
    """a, by output, if a random change d of the layer's output changes what comes to the ReLU by a·d."""
    layer, (_, output), before = model.get_submodule(name), trace.outputs[name], trace.inputs[number]
    if before.shape != output.shape or not output.numel():
        return None
    drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
    change = drawn * output.std().clamp_min(torch.finfo(output.dtype).tiny)
    seen: dict[int, Tensor] = {}
    handle = layer.register_forward_hook(lambda _, args, y: y + change)
    try:
        with Relus(lambda k, x: seen.update({k: x.clone()}) if k == number else None):
            outputs_of(model, batch, forward)
    finally:
        handle.remove()
    moved = seen[number] - before
    others = [axis for axis in range(moved.ndim) if axis != channel_axis(layer, moved)]
    slope = (moved * change).sum(others) / change.square().sum(others)
    off = moved - along_channels(slope, layer, moved) * change
    return slope if off.norm() <= closeness(moved) * moved.norm() else None


def closeness(x: Tensor) -> float:
    """How much of itself what is computed alike in two ways may differ by: some units of its rounding."""
    return max(CLOSE, 4 * torch.finfo(x.dtype).eps)


def channel_axis(layer: nn.Module, output: Tensor) -> int:
    """The axis of a layer's output that counts its outputs; layers may come without an axis of samples."""
    return output.ndim - 1 - (layer.order if isinstance(layer, FactorizedConv) else order_of(layer) or 0)


def along_channels(values: Tensor, layer: nn.Module, output: Tensor) -> Tensor:
    """A value for every output of a layer, to be multiplied with what has the shape of its output.

    >>> along_channels(torch.ones(4), nn.Conv2d(3, 4, 1), torch.zeros(2, 4, 8, 8)).shape
    torch.Size([4, 1, 1])
    """
    return values.reshape(-1, *[1] * (output.ndim - 1 - channel_axis(layer, output)))
