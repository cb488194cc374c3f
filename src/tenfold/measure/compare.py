"""What a model costs and how good it is; and how a smaller one compares."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from tenfold.measure.accuracy import accuracy
from tenfold.measure.flops import flops
from tenfold.measure.latency import Latency, interleaved, latency
from tenfold.measure.memory import peak_memory
from tenfold.measure.running import Example
from tenfold.measure.size import nbytes, parameters

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Measurement:
    """Numbers of one model; `None` where not measured.

    `flops`, `latency` and `peak_memory` (bytes) are of one forward pass over the whole example.
    """

    params: int
    bytes: int
    flops: int
    latency: Latency | None = None
    peak_memory: int | None = None
    accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as a nested dictionary, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """The numbers of a dense model and its smaller version; ratios are `None` where a number is missing."""

    dense: Measurement
    small: Measurement

    @property
    def params_kept(self) -> float | None:
        """Parameters of the small model as a fraction of the dense one's."""
        return _ratio(self.small.params, self.dense.params)

    @property
    def bytes_kept(self) -> float | None:
        """Bytes of the small model as a fraction of the dense one's."""
        return _ratio(self.small.bytes, self.dense.bytes)

    @property
    def flops_kept(self) -> float | None:
        """FLOPs of the small model as a fraction of the dense one's."""
        return _ratio(self.small.flops, self.dense.flops)

    @property
    def memory_kept(self) -> float | None:
        """Peak memory of the small model as a fraction of the dense one's."""
        return _ratio(self.small.peak_memory, self.dense.peak_memory)

    @property
    def speedup(self) -> float | None:
        """How many times as fast the small model is: the ratio of the median times."""
        if self.dense.latency is None or self.small.latency is None:
            return None
        return _ratio(self.dense.latency.median, self.small.latency.median)

    @property
    def accuracy_drop(self) -> float | None:
        """By how much the accuracy fell, as a difference of fractions: 0.01 is one percentage point."""
        if self.dense.accuracy is None or self.small.accuracy is None:
            return None
        return self.dense.accuracy - self.small.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Both measurements and all ratios as a nested dictionary, ready for JSON."""
        ratios = ("params_kept", "bytes_kept", "flops_kept", "memory_kept", "speedup", "accuracy_drop")
        return asdict(self) | {name: getattr(self, name) for name in ratios}


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def measure(
    model: nn.Module,
    example: Example,
    batches: Batches | None = None,
    *,
    timing: bool = True,
    memory: bool = True,
    warmup: int = 3,
    repeats: int = 20,
) -> Measurement:
    """All numbers of one model; the accuracy if there are `batches` of (inputs, labels).

    >>> import torch
    >>> measure(nn.Linear(10, 5), torch.ones(1, 10), timing=False)
    Measurement(params=55, bytes=220, flops=100, latency=None, peak_memory=20, accuracy=None)
    """
    time = latency(model, example, warmup=warmup, repeats=repeats) if timing else None
    return _measurement(model, example, batches, time, memory)


def compare(
    dense: nn.Module,
    small: nn.Module,
    example: Example,
    batches: Batches | None = None,
    *,
    timing: bool = True,
    memory: bool = True,
    warmup: int = 3,
    repeats: int = 20,
) -> Comparison:
    """The numbers of both models, timed in turn so that a drifting machine slows both.

    `batches` are read once for each model: a list or a DataLoader, not a generator.

    >>> import torch
    >>> compare(nn.Linear(10, 10), nn.Linear(10, 5), torch.ones(1, 10)).params_kept
    0.5
    """
    times: dict[str, Latency] = {}
    if timing:
        times = interleaved({"dense": dense, "small": small}, example, warmup=warmup, repeats=repeats)
    return Comparison(
        _measurement(dense, example, batches, times.get("dense"), memory),
        _measurement(small, example, batches, times.get("small"), memory),
    )


def _measurement(
    model: nn.Module, example: Example, batches: Batches | None, time: Latency | None, memory: bool
) -> Measurement:
    return Measurement(
        params=parameters(model),
        bytes=nbytes(model),
        flops=flops(model, example),
        latency=time,
        peak_memory=peak_memory(model, example) if memory else None,
        accuracy=None if batches is None else accuracy(model, batches),
    )
