"""How long `compress` with data takes on a ResNet-50 at 224×224, and how much memory; see README.md.

python benchmarks/compress_time/run.py --microbatch 4 --out result.json
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress import KroneckerFisher, pipeline
from tenfold.ranks import Budget, Lagrangian
from tenfold.zoo.resnet import Bottleneck, resnet

BOUND_SECONDS, BOUND_MODELS = 180.0, 3.0
STEPS = ("find_sites", "collect", "plan", "apply_", "reestimate_batchnorm_")
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Images:
    """Random images with labels, made anew on every reading, as a data loader reads them from disk."""

    count: int
    batch: int
    size: int = 224
    classes: int = 1000

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        source = torch.Generator().manual_seed(1)
        for start in range(0, self.count, self.batch):
            shape = (min(self.batch, self.count - start), 3, self.size, self.size)
            x = torch.randn(shape, generator=source).to(memory_format=torch.channels_last)
            yield x, torch.randint(self.classes, shape[:1], generator=source)


def resnet50() -> nn.Module:
    """ResNet-50 with the stem for 224×224 images: 7×7 of stride 2, and max pooling behind its activation."""
    torch.manual_seed(0)
    model = resnet(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), 1000)
    model.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    model.relu = nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def peak() -> int:
    """Bytes of the most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Bytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def return_memory() -> None:
    """Give freed memory back to the system, so that the level is that of what is held."""
    ctypes.CDLL(None).malloc_trim(0)


class Stopwatch:
    """Seconds in, and the peak of memory after, the functions that it goes round."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start, cpu = time.perf_counter(), time.process_time()
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + time.process_time() - cpu
            self.peaks[name] = peak()
            return result

        return timed


def compressing(images: Images, microbatch: int | None) -> dict[str, Any]:
    """One call of `compress`: seconds of its steps, and memory above the level before the model was made."""
    start = resident()
    model = resnet50()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    watch = Stopwatch()
    for name in STEPS:
        setattr(pipeline, name, watch.around(name, getattr(pipeline, name)))
    example = next(iter(images))[0][:1]
    compress = watch.around("total", pipeline.compress)
    result = compress(
        model,
        Budget(params=0.5),
        example=example,
        metric=KroneckerFisher(),
        rule=Lagrangian(),
        data=images,
        microbatch=microbatch,
    )
    return {
        "seconds": {name: round(s, 2) for name, s in watch.seconds.items()},
        "cpu_seconds": {name: round(s, 2) for name, s in watch.cpu_seconds.items()},
        "microbatch": microbatch,
        "model": weights,
        "start": start,
        "peak": watch.peaks["total"] - start,
        "peak_after": {name: p - start for name, p in watch.peaks.items()},
        "kept": sum(p.numel() for p in result.model.parameters())
        / sum(p.numel() for p in model.parameters()),
        "layers": len(result.fits),
    }


def one_batch(images: Images, frozen: bool) -> dict[str, Any]:
    """Memory of a forward and backward pass on one batch, above the level with the model loaded.

    With `frozen` parameters, whose gradients are not taken, the model is in evaluation mode as in
    calibration; otherwise it is one of training, without the optimizer.
    """
    model = resnet50().train(not frozen)
    if frozen:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    return_memory()
    before = resident()
    seconds = []
    x, labels = next(iter(images))
    for _ in range(2):
        start = time.perf_counter()
        y = model(x.requires_grad_(frozen))
        nn.functional.cross_entropy(y, labels).backward()
        seconds.append(time.perf_counter() - start)
    return {"batch": peak() - before, "seconds": round(min(seconds), 2)}


def in_new_process(only: str, images: int, batch: int, microbatch: int | None = None) -> dict[str, Any]:
    """What a part gives in a process of its own, whose peak is its alone."""
    command = [sys.executable, __file__, "--only", only, "--images", str(images), "--batch", str(batch)]
    pieces = ["--microbatch", str(microbatch)] if microbatch else []
    done = subprocess.run([*command, *pieces], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def machine() -> dict[str, Any]:
    """Hardware, versions and threads."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": [round(n, 1) for n in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tenfold": version("tenfold"),
    }


def compared(found: dict[str, Any], batches: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One run against its bounds: 3 models beside one of the `batches`, of which `frozen` is the bar."""
    allowed = {name: BOUND_MODELS * found["model"] + batch["batch"] for name, batch in batches.items()}
    return {
        "microbatch": found["microbatch"],
        "seconds": found["seconds"]["total"],
        "in_time": found["seconds"]["total"] < BOUND_SECONDS,
        "peak_mb": round(found["peak"] / MEBIBYTE),
        "allowed_mb": {f"beside_{name}": round(bound / MEBIBYTE) for name, bound in allowed.items()},
        "models": {
            f"beside_{name}": round((found["peak"] - batch["batch"]) / found["model"], 2)
            for name, batch in batches.items()
        },
        "in_memory": found["peak"] < allowed["frozen"],
    }


def measured(images: int, batch: int, microbatch: int | None) -> dict[str, Any]:
    """All parts, one after another: batches alone, `compress` on whole batches and on microbatches."""
    batches = {name: in_new_process(name, images, batch) for name in ("frozen", "training")}
    runs = {"whole": in_new_process("compress", images, batch)}
    if microbatch:
        batches["microbatch"] = in_new_process("frozen", images, microbatch)
        runs["microbatch"] = in_new_process("compress", images, batch, microbatch)
    sizes = {f"batch_{name}_mb": round(part["batch"] / MEBIBYTE) for name, part in batches.items()}
    figures = {"model_mb": round(runs["whole"]["model"] / MEBIBYTE, 1)} | sizes
    figures |= {name: compared(found, batches) for name, found in runs.items()}
    return {"summary": figures, "batches": batches, "compress": runs}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--microbatch", type=int, help="also run `compress` with so many images at a time")
    parser.add_argument("--only", choices=("compress", "frozen", "training"))
    args = parser.parse_args()
    images = Images(args.images, args.batch)
    if args.only:
        whole = args.only == "compress"
        part = compressing(images, args.microbatch) if whole else one_batch(images, args.only == "frozen")
        print(json.dumps(part))
        return
    load = machine()
    found = measured(args.images, args.batch, args.microbatch)
    text = json.dumps({"images": args.images, "batch": args.batch, "machine": load, **found}, indent=2) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
