"""What a result was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def described(device: torch.device) -> dict[str, object]:
    """Hardware, versions and threads, for JSON."""
    on_gpu = device.type == "cuda"
    return {
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "cpu": _entry("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tenfold": version("tenfold"),
    }


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether training in bfloat16 is faster: on GPUs, and on CPUs with tiles for it (AMX).

    A step of ResNet-20 with batch 128 took half the time on one core of such a CPU.
    """
    return device.type == "cuda" or "amx_bf16" in _entry("flags").split()


def _entry(name: str) -> str:
    """What Linux says of the first core; "" elsewhere."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
