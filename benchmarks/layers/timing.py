"""Seconds of a forward, and of a forward and backward pass, of several modules in one process."""

import ctypes
import gc
import platform
import random
from collections.abc import Callable, Mapping
from time import perf_counter
from types import FunctionType

import torch
from torch import Tensor, nn

MODES = ("forward", "forward+backward")
COMPILED = tuple(f"compiled {mode}" for mode in MODES)
WARM = 5
Call = Callable[[Tensor], Tensor]


def output(found: Tensor | tuple[Tensor, object]) -> Tensor:
    """What a module returns, without the last state of a recurrent one."""
    return found[0] if isinstance(found, tuple) else found


def compiled(module: nn.Module, name: str) -> Call:
    """`module` compiled into a code object of its own, so that none looks through another's guards."""

    def call(x: Tensor) -> Tensor:
        return module(x)

    code = call.__code__.replace(co_name="".join(c if c.isalnum() else "_" for c in name))
    own = FunctionType(code, globals(), code.co_name, None, call.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False)


def forward(call: Call, x: Tensor) -> Callable[[], float]:
    """Seconds of one forward pass without gradients."""

    def once() -> float:
        with torch.no_grad():
            start = perf_counter()
            call(x)
            return perf_counter() - start

    return once


def forward_backward(call: Call, module: nn.Module, x: Tensor) -> Callable[[], float]:
    """Seconds of one forward and backward pass, to all parameters, and to the input if it is not indices."""
    x = x.clone().requires_grad_(x.is_floating_point())
    gradient = torch.randn_like(output(call(x)).detach())

    def once() -> float:
        start = perf_counter()
        output(call(x)).backward(gradient)
        seconds = perf_counter() - start
        x.grad = None
        module.zero_grad(set_to_none=True)
        return seconds

    return once


def prepared(modules: Mapping[str, nn.Module], mode: str, x: Tensor) -> dict[str, Callable[[], float]]:
    """What to time in this mode."""
    calls: dict[str, Call] = dict(modules)
    if mode in COMPILED:
        torch._dynamo.reset()
        calls = {name: compiled(module, name) for name, module in modules.items()}
    if mode.endswith("backward"):
        return {name: forward_backward(call, modules[name].train(), x) for name, call in calls.items()}
    return {name: forward(call, x) for name, call in calls.items()}


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
    for _ in range(WARM):
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
