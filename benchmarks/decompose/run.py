"""Time decompositions against TensorLy, pyttb and torchTT; see README.md.

python benchmarks/decompose/run.py --out result.json
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import warnings
from bisect import bisect_left
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 30, 50, 80)
PATIENCE = 60
"""Seconds of a run after which no more sweeps are tried."""
LONG = 20
"""Seconds of runs after which they are not repeated."""
SLACK = 1e-3
"""By how much of itself an error may be above the target."""
PEERS = ("tensorly", "pyttb", "torchTT")


def main() -> None:
    """The whole benchmark, or one contender of one row in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--row", type=int, help="only this row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help="ROW,CONTENDER,STEPS,REPEATS: measure in this process and print JSON")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(*map(int, asked.one.split(",")))))
        return
    os.environ.update(OMP_NUM_THREADS=str(asked.threads))
    found = load(asked.out)
    for number in range(row_count()) if asked.row is None else [asked.row]:
        result = compared(number)
        found[result["row"]] = result
        print(table(result), flush=True)
        if asked.out:
            save(asked.out, found, asked.threads)


def row_count() -> int:
    """How many rows there are; imported late, so that the children alone hold tensors."""
    from rows import ROWS

    return len(ROWS)


# One contender, in a process of its own -------------------------------------------------------------------


def measured(row: int, contender: int, steps: int, repeats: int) -> dict[str, Any]:
    """Seconds of each repeat, the error, and the peak memory of the first run beside the tensor."""
    from contenders import prepared
    from rows import ROWS

    warnings.simplefilter("ignore")
    chosen = ROWS[row]()
    who = chosen.contenders[contender]
    tensor = prepared(who.library, chosen.tensor())
    warm(who)
    size = 0 if who.library == "pyttb" else tensor.nbytes
    before = resident(reset=True)
    seconds = []
    for n in range(repeats):
        start = perf_counter()
        found = who.run(tensor, steps)
        seconds.append(perf_counter() - start)
        if n == 0:
            peak = resident(peak=True) - before
        if sum(seconds) > LONG:
            break
    return {
        "name": who.name,
        "seconds": seconds,
        "peak_bytes": peak,
        "tensor_bytes": size,
        "error": who.error(found, tensor),
        "steps": getattr(found, "steps", steps),
    }


def warm(who: Any) -> None:
    """Import what the contender imports, on a tiny tensor; options that do not fit it do not matter."""
    import numpy as np
    from contenders import prepared

    tiny = np.random.default_rng(0).standard_normal((6, 6, 3, 3)).astype(np.float32)
    try:
        who.run(prepared(who.library, tiny), 1)
    except Exception:
        return


def resident(reset: bool = False, peak: bool = False) -> int:
    """Resident bytes of this process, now or at the peak since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    key = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


# All contenders of a row ----------------------------------------------------------------------------------


def compared(number: int) -> dict[str, Any]:
    """Every contender of a row, each in processes of its own, one after another."""
    from rows import ROWS

    row = ROWS[number]()
    run = cache(partial(child, number))
    peers = [n for n, c in enumerate(row.contenders) if not c.name.startswith("tenfold")]
    target = None
    if row.sweeps:
        target = min(run(n, row.sweeps, 1)["error"] for n in peers) * (1 + SLACK)
    results = []
    for n in range(len(row.contenders)):
        steps = 0
        if target is not None:
            steps = enough(lambda count, n=n: run(n, count, 1), target, row.sweeps or 0)
        tried = run(n, steps, 1) if row.sweeps else None
        again = tried is None or tried["seconds"][0] <= LONG
        results.append(run(n, steps, 3) if again else tried)
        results[-1]["reached"] = target is None or results[-1]["error"] <= target
    return {"row": row.name, "target": target, "results": results}


def enough(run: Callable[[int], dict[str, Any]], target: float, sweeps: int) -> int:
    """The smallest of `COUNTS` that reaches the target, or the last one tried.

    Errors fall with the sweeps, so that what is below `sweeps` is bisected and what is above tried in turn.
    """

    def reaches(count: int) -> bool:
        return bool(run(count)["error"] <= target)

    start = COUNTS.index(sweeps)
    if reaches(sweeps):
        return COUNTS[bisect_left(COUNTS, True, hi=start, key=reaches)]
    for last, count in pairwise(COUNTS[start:]):
        if run(last)["seconds"][0] > PATIENCE:
            return last
        if reaches(count):
            return count
    return COUNTS[-1]


def child(*numbers: int) -> dict[str, Any]:
    """`measured` in a fresh process."""
    command = [sys.executable, __file__, "--one", ",".join(map(str, numbers))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# Results --------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """One row as a Markdown table."""
    lines = [f"\n{result['row']}\n", "| | seconds | peak MB | error | steps |", "|---|---:|---:|---:|---:|"]
    for r in result["results"]:
        mark = "" if r["reached"] else " (not reached)"
        lines.append(
            f"| {r['name']} | {median(r['seconds']):.4g} | {r['peak_bytes'] / 1e6:.0f} "
            f"| {r['error']:.6g}{mark} | {r['steps']} |"
        )
    return "\n".join(lines)


def load(path: Path | None) -> dict[str, Any]:
    """Rows that are measured already."""
    if path is None or not path.exists():
        return {}
    return {row["row"]: row for row in json.loads(path.read_text())["rows"]}


def save(path: Path, rows: dict[str, Any], threads: int) -> None:
    """Rows with what they were measured on."""
    about = {
        "machine": platform.processor() or platform.machine(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in ("torch", "numpy", "scipy", *PEERS)},
    }
    path.write_text(json.dumps({**about, "rows": list(rows.values())}, indent=1, ensure_ascii=False) + "\n")


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


def installed(name: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
