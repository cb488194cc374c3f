"""Decompositions of a Dask array that is larger than memory: seconds, passes over the data, peak memory.

python benchmarks/decompose/out_of_core.py --gigabytes 30 --out result.json

The tensor is of multilinear rank 20 plus white noise of `--noise` times its deviation, in float64. It is
made chunk by chunk, anew whenever a chunk is asked for, in the chunks that Dask would choose (128 MiB). Each
method runs in a process of its own, whose peak is the largest resident size that it ever had, imports and
all. Methods that are in the file of results already are not run again.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np

from tenfold.decompose import methods
from tenfold.formats import Format, Tucker

BOUND = 4 * 10**9
RANK = 20
METHODS = ("tt_svd", "st_hosvd", "hosvd", "randomized_hosvd", "randomized_tt")


@dataclass
class Noisy:
    """Makes the chunks of a tensor of low rank plus noise, and counts the bytes that it has made."""

    truth: Tucker
    noise: float
    made: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def chunk(self, block_info: Any = None) -> np.ndarray:
        """The chunk at a place, always the same one."""
        where = block_info[None]["array-location"]
        found = self.truth[tuple(slice(*s) for s in where)].dense()
        seed = np.random.default_rng([start for start, _ in where])
        noise = seed.standard_normal(found.shape)
        noise *= self.noise
        noise += found
        with self.lock:
            self.made += noise.nbytes
        return noise

    def array(self) -> da.Array:
        """The tensor."""
        chunks = da.core.normalize_chunks("auto", self.truth.shape, dtype=np.float64)
        return da.map_blocks(self.chunk, chunks=chunks, dtype=np.float64, meta=np.empty((0, 0, 0)))


def measured(name: str, gigabytes: float, noise: float) -> dict[str, Any]:
    """One method on the tensor: what it took, what it found."""
    side = round((gigabytes * 1e9 / 8) ** (1 / 3))
    shape = (side, side + 1, side + 2)
    truth = Tucker.random(shape, RANK, like=np.zeros(()), generator=0)
    source = Noisy(truth, noise)
    tensor = source.array()
    ranks = RANK if name != "tt_svd" and "tt" not in name else (RANK, RANK)
    start, cpu = time.perf_counter(), time.process_time()
    fit = methods[name]().fit(tensor, ranks, generator=0)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    found = fit.value.map(lambda f: f.compute())
    return {
        "method": name,
        "shape": shape,
        "gigabytes": round(tensor.nbytes / 1e9, 2),
        "chunk_megabytes": round(max(np.prod(c) for c in [tensor.chunksize]) * 8 / 1e6, 1),
        "noise": noise,
        "ranks": fit.value.ranks,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "passes": round(source.made / tensor.nbytes, 2),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "error": fit.error,
        "distance_from_truth": distance(found, truth),
    }


def distance(found: Format, truth: Format) -> float:
    """Relative to the truth; it is far above the square root of the rounding errors."""
    square = found.norm() ** 2 + truth.norm() ** 2 - 2 * found.inner(truth)
    return float(square**0.5 / truth.norm())


def machine() -> dict[str, Any]:
    """Hardware, versions and threads."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": [round(n, 1) for n in os.getloadavg()],
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "dask", "tenfold")},
    }


def in_new_process(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """A method in a process of its own, with one BLAS thread for each thread of Dask."""
    command = [sys.executable, __file__, "--only", name, "--gigabytes", str(args.gigabytes)]
    command += ["--noise", str(args.noise), "--threads", str(args.threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=30.0)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default="tt_svd,st_hosvd")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=METHODS)
    args = parser.parse_args()
    if args.only:
        with dask.config.set(scheduler="threads", num_workers=args.threads):
            print(json.dumps(measured(args.only, args.gigabytes, args.noise)))
        return
    rows = json.loads(args.out.read_text())["rows"] if args.out and args.out.exists() else []
    for name in args.methods.split(","):
        if name in {row["method"] for row in rows}:
            continue
        rows.append(in_new_process(name, args))
        print(json.dumps(rows[-1]), flush=True)
        if args.out:
            args.out.write_text(json.dumps(result(rows, args.threads), indent=1) + "\n")


def result(rows: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """All rows, whether they are within the bound, and where they were measured."""
    within = all(row["peak_gigabytes"] * 1e9 < BOUND for row in rows)
    bound = {"bound_gigabytes": BOUND / 1e9, "within": within}
    return {"machine": machine(), "threads": threads, **bound, "rows": rows}


if __name__ == "__main__":
    main()
