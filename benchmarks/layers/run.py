"""Time factorized layers against the same sequences written by hand; see README.md.

python benchmarks/layers/run.py --out result.json
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from types import FunctionType

import hand
import torch
from torch import Tensor, nn

from tenfold.nn import FactorizedConv, FactorizedLinear
from tenfold.nn.base import FactorizedLayer

BOUND = 1.15
TOLERANCE = 1e-5
MODES = ("eager forward", "eager forward+backward", "compiled forward", "compiled forward+backward")
Contenders = dict[str, nn.Module]


@dataclass(frozen=True)
class Row:
    """A layer, the sequence that it stands for, and the shape of its input."""

    name: str
    layer: Callable[[], FactorizedLayer]
    by_hand: Callable[[FactorizedLayer], nn.Sequential]
    shape: tuple[int, ...]


def conv_row(name: str, format: str, layout: str, rank: object, shape: tuple[int, ...]) -> Row:
    """A 3×3 convolution that keeps the number of channels."""
    channels = shape[1]

    def layer() -> FactorizedConv:
        return FactorizedConv(
            channels, channels, (3, 3), rank=rank, format=format, layout=layout, padding=1, example=shape
        )

    return Row(name, layer, getattr(hand, name), shape)


def linear_row(rows: int) -> Row:
    """A low-rank linear layer of 1024 features."""
    shape = (rows, 1024)
    return Row("lowrank", lambda: FactorizedLinear(1024, 1024, rank=64, example=shape), hand.lowrank, shape)


def rows() -> list[Row]:
    """Large layers, where the kernels count, and small ones, where Python does."""
    found = []
    for shape, r in (((8, 256, 28, 28), 64), ((1, 64, 16, 16), 16)):
        found += [
            conv_row("cp3", "cp", "o i h w -> o i (h w)", 2 * r, shape),
            conv_row("tucker2", "tucker", "o i h w -> o i (h w)", (r, r, None), shape),
            conv_row("spatial_svd", "lowrank", "o i h w -> (i h) (o w)", r, shape),
        ]
    return [*found, linear_row(256), linear_row(1)]


def contenders(row: Row) -> Contenders:
    """The dense layer, the sequence by hand in each memory format, and ours; all hold the same factors."""
    ours = row.layer()
    by_hand = row.by_hand(ours)
    found: Contenders = {"dense": ours.to_dense(), "by hand": by_hand}
    if len(row.shape) == 4:
        found["by hand, channels-last"] = deepcopy(by_hand).to(memory_format=torch.channels_last)
    return found | {"ours": ours}


def check_equal(modules: Contenders, shape: tuple[int, ...]) -> float:
    """Largest difference from the dense layer's output; raises unless it is that of rounding."""
    x = torch.randn(shape)
    with torch.no_grad():
        expected = modules["dense"](x)
        worst = max(float((m(x) - expected).abs().max()) for m in modules.values())
    if worst > TOLERANCE * max(1.0, float(expected.abs().max())):
        raise AssertionError(f"outputs differ by {worst}: the contenders do not hold the same factors.")
    return worst


def compiled(module: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
    """`module` compiled into a code object of its own, so that none looks through another's guards."""

    def call(x: Tensor) -> Tensor:
        return module(x)

    code = call.__code__.replace(co_name=name.replace(" ", "_"))
    own = FunctionType(code, globals(), code.co_name, None, call.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False)


def forward(call: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], float]:
    """Seconds of one forward pass without gradients."""

    def once() -> float:
        with torch.no_grad():
            start = perf_counter()
            call(x)
            return perf_counter() - start

    return once


def forward_backward(call: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> Callable[[], float]:
    """Seconds of one forward and backward pass, to the input and all parameters."""
    x = x.clone().requires_grad_()
    gradient = torch.randn_like(call(x).detach())

    def once() -> float:
        start = perf_counter()
        call(x).backward(gradient)
        seconds = perf_counter() - start
        x.grad = None
        module.zero_grad(set_to_none=True)
        return seconds

    return once


def prepared(modules: Contenders, mode: str, x: Tensor) -> dict[str, Callable[[], float]]:
    """What to time in this mode."""
    if mode.startswith("compiled"):
        torch._dynamo.reset()
    calls = {n: compiled(m, n) if mode.startswith("compiled") else m for n, m in modules.items()}
    if mode.endswith("backward"):
        return {n: forward_backward(call, modules[n].train(), x) for n, call in calls.items()}
    return {n: forward(call, x) for n, call in calls.items()}


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: else the place on the heap decides who pays for fresh pages."""
    if platform.libc_ver()[0] == "glibc":
        mmap_threshold, trim_threshold = -3, -1
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**31 - 1)


def interleaved(
    tasks: Mapping[str, Callable[[], float]], seconds: float, least: int
) -> dict[str, list[float]]:
    """Times of every task, taken in turn in random order for `seconds`, at least `least` rounds."""
    order, shuffle = list(tasks), random.Random(0).shuffle
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(5):
        for name in order:
            tasks[name]()
    gc.collect()
    gc.disable()
    end, rounds = perf_counter() + seconds, 0
    while rounds < least or perf_counter() < end:
        shuffle(order)
        for name in order:
            times[name].append(tasks[name]())
        rounds += 1
    gc.enable()
    return times


def measure(row: Row, inputs: str, modes: tuple[str, ...], seconds: float) -> list[dict[str, object]]:
    """One record for each mode."""
    torch.manual_seed(0)
    modules = contenders(row)
    difference = check_equal(modules, row.shape)
    x = torch.randn(row.shape)
    if inputs == "channels-last":
        x = x.to(memory_format=torch.channels_last)
    records = []
    for mode in modes:
        times = interleaved(prepared(modules, mode, x), seconds, 20)
        medians = {name: median(t) for name, t in times.items()}
        best = min((n for n in medians if n.startswith("by hand")), key=medians.__getitem__)
        ratio = medians["ours"] / medians[best]
        records.append(
            {
                "layer": row.name,
                "input": list(row.shape),
                "memory": inputs,
                "mode": mode,
                "rounds": len(times["ours"]),
                "median_us": {name: round(1e6 * t, 2) for name, t in medians.items()},
                "best_by_hand": best,
                "ours_to_best_by_hand": round(ratio, 3),
                "largest_difference": difference,
            }
        )
        print(
            f"{row.name:12}{row.shape!s:18}{inputs:14}{mode:27}{ratio:6.2f}  ",
            records[-1]["median_us"],
            flush=True,
        )
    return records


def machine() -> dict[str, object]:
    """Hardware, versions and threads."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tenfold": version("tenfold"),
        "mkldnn": torch.backends.mkldnn.is_available(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the result goes, as JSON")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each cell")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--mode", action="append", choices=MODES, help="one of the modes; may be repeated")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    records: list[dict[str, object]] = []
    for row in rows():
        if options.only in f"{row.name} {row.shape}":
            for inputs in ("contiguous", "channels-last")[: 1 + (len(row.shape) == 4)]:
                records += measure(row, inputs, tuple(options.mode or MODES), options.seconds)
    result = {"machine": machine(), "bound": BOUND, "records": records}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    worst = max(r["ours_to_best_by_hand"] for r in records)
    print(f"worst ratio {worst:.2f}; the bar is {BOUND}")


if __name__ == "__main__":
    main()
