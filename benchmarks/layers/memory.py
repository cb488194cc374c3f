"""Peak memory of a forward and backward pass."""

import ctypes
import gc
import warnings
from pathlib import Path

import torch
from rows import row_named
from timing import output
from torch import Tensor, nn

PASSES = 3


def peak(row: str, name: str, threads: int) -> int:
    """Bytes that a pass needs at its peak beside the module and its input, all gradients included.

    That is the largest resident size less the one before. A pass before it loads what has to be loaded, and
    freed memory goes back to the system. The smallest of a few passes counts, as others may load pages, too.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    give_back_freed_memory()
    chosen = row_named(row)
    module, x = chosen.contenders()[name].train(), chosen.input()
    x.requires_grad_(x.is_floating_point())
    gradient = torch.randn_like(output(module(x)).detach())
    return min(one_pass(module, x, gradient) for _ in range(PASSES + 1))


def one_pass(module: nn.Module, x: Tensor, gradient: Tensor) -> int:
    """The growth of the resident size in one pass."""
    x.grad = None
    module.zero_grad(set_to_none=True)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident(reset=True)
    output(module(x)).backward(gradient)
    return resident(peak=True) - before


def give_back_freed_memory() -> None:
    """Have glibc map what is larger than a few pages, so that memory freed is memory returned."""
    mmap_threshold = -3
    ctypes.CDLL(None).mallopt(mmap_threshold, 2**14)


def resident(reset: bool = False, peak: bool = False) -> int:
    """Resident bytes of this process, now or at the peak since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    key = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
