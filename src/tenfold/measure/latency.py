"""How long one forward pass takes."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn

from tenfold.core.errors import OptionError
from tenfold.measure.running import Example, device_of, evaluating, move, run


@dataclass(frozen=True)
class Latency:
    """Seconds that one forward pass takes, and how they were measured.

    `low` and `high` are the 10th and 90th percentile of `repeats` passes. Only numbers of one machine,
    taken in one `interleaved` call, should be compared.
    """

    median: float
    low: float
    high: float
    repeats: int
    threads: int
    device: str


def latency(model: nn.Module, example: Example, *, warmup: int = 3, repeats: int = 20) -> Latency:
    """Time of one forward pass in seconds, in evaluation mode without gradients.

    Every pass gets its own copy of the example, on the model's device before the clock starts. To compare
    models, use `interleaved`.

    Raises:
        OptionError: unless `warmup` >= 0 and `repeats` >= 1.

    >>> latency(nn.Linear(4, 4), torch.ones(1, 4), repeats=5).repeats
    5
    """
    return interleaved({"model": model}, example, warmup=warmup, repeats=repeats)["model"]


def interleaved(
    models: Mapping[str, nn.Module], example: Example, *, warmup: int = 3, repeats: int = 20
) -> dict[str, Latency]:
    """Times of several models, taken in turn, so that a machine that slows down slows all of them.

    Each round runs every model once, in an order that reverses from round to round.

    Raises:
        OptionError: unless `warmup` >= 0 and `repeats` >= 1.

    >>> times = interleaved({"dense": nn.Linear(4, 4), "small": nn.Linear(4, 1)}, torch.ones(1, 4))
    >>> sorted(times)
    ['dense', 'small']
    """
    _check(warmup, repeats)
    times: dict[str, list[float]] = {name: [] for name in models}
    inputs = {name: move(example, device_of(model)) for name, model in models.items()}
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluating(model))
        for turn in range(warmup + repeats):
            for name in _order(tuple(models), turn):
                times[name].append(_seconds(models[name], inputs[name]))
    return {name: _latency(seconds[warmup:], device_of(models[name])) for name, seconds in times.items()}


def _check(warmup: int, repeats: int) -> None:
    if warmup < 0 or repeats < 1:
        raise OptionError(
            f"Timing needs warmup >= 0 and repeats >= 1, but got warmup={warmup}, repeats={repeats}.",
            "Twenty repeats after three of warm-up are a good start.",
        )


def _order(names: Sequence[str], turn: int) -> Sequence[str]:
    return names if turn % 2 == 0 else names[::-1]


def _seconds(model: nn.Module, example: Example) -> float:
    device = device_of(model)
    own = move(example, device)
    _wait(device)
    start = perf_counter()
    run(model, own)
    _wait(device)
    return perf_counter() - start


def _wait(device: torch.device) -> None:
    """Until the GPU has done what it was given: its calls return before they are finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _latency(seconds: Sequence[float], device: torch.device) -> Latency:
    quantiles = torch.quantile(torch.tensor(seconds).double(), torch.tensor([0.1, 0.5, 0.9]).double())
    low, median, high = quantiles.tolist()
    return Latency(median, low, high, len(seconds), torch.get_num_threads(), str(device))
