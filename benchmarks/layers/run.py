"""Time factorized layers against chains written by hand and TensorLy-Torch; see README.md.

python benchmarks/layers/run.py --out result.json
"""

import argparse
import json
import multiprocessing
import os
import platform
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from memory import peak
from peers import NAME
from rows import row_named, rows
from timing import COMPILED, MODES, interleaved, keep_freed_memory, output, prepared
from torch import Tensor, nn

BOUND = 1.15
TOLERANCE = 1e-5
LEAST = 20
PACKAGES = ("torch", "tenfold", "tensorly", "tensorly-torch", "opt_einsum")


def check_equal(modules: dict[str, nn.Module], x: Tensor) -> float:
    """Largest difference from our output; raises unless it is that of rounding."""
    with torch.no_grad():
        expected = output(modules["ours"](x))
        worst = max(float((output(m(x)) - expected).abs().max()) for m in modules.values())
    if worst > TOLERANCE * max(1.0, float(expected.abs().max())):
        raise AssertionError(f"outputs differ by {worst}: the contenders do not hold the same factors.")
    return worst


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own: a fork of this one, which has run nothing yet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


def measured(name: str, modes: tuple[str, ...], options: argparse.Namespace) -> dict[str, Any]:
    """Times of all contenders of a row, taken in one process, and the peak memory of each in its own."""
    record = fresh(timed, name, modes, options.seconds, options.threads)
    if not options.no_memory:
        names = next(iter(record["median_us"].values()))
        record["peak_bytes"] = {n: fresh(peak, name, n, options.threads) for n in names}
    return record


def timed(name: str, modes: tuple[str, ...], seconds: float, threads: int) -> dict[str, Any]:
    """Medians of all contenders of a row in these modes."""
    warnings.simplefilter("ignore")
    keep_freed_memory()
    torch.set_num_threads(threads)
    row = row_named(name)
    modules, x = row.contenders(), row.input()
    record: dict[str, Any] = {
        "row": name,
        "kind": row.kind,
        "format": row.format,
        "input": list(row.shape),
        "threads": threads,
        "parameters": sum(p.numel() for p in modules["ours"].parameters()),
        "dense_parameters": sum(p.numel() for p in modules["dense"].parameters()),
        "program": list(getattr(getattr(modules["ours"], "program", None), "kinds", ())),
        "largest_difference": check_equal(modules, x),
        "median_us": {},
        "rounds": {},
    }
    for mode in modes:
        compiled = mode in COMPILED  # TensorLy-Torch is not: most of it breaks the graph
        asked = {n: m for n, m in modules.items() if not (compiled and n.startswith(NAME))}
        times = interleaved(prepared(asked, mode, x), seconds, LEAST)
        record["median_us"][mode] = {n: round(1e6 * median(t), 2) for n, t in times.items()}
        record["rounds"][mode] = len(times["ours"])
    return record


def ratios(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Mode -> ours as a multiple of the best by hand; the best of TensorLy-Torch as a multiple of ours."""
    found = {}
    for mode, times in record["median_us"].items():
        hand, peer = (best(times, start) for start in ("by hand", NAME))
        found[mode] = {"ours / by hand": times["ours"] / times[hand]} if hand else {}
        if peer:
            found[mode][f"{NAME} / ours"] = times[peer] / times["ours"]
    return found


def best(times: dict[str, float], start: str) -> str | None:
    """The fastest contender whose name begins so."""
    names = [name for name in times if name.startswith(start)]
    return min(names, key=times.__getitem__) if names else None


def line(record: dict[str, Any]) -> str:
    """What a person watching wants to see."""
    parts = [f"{record['row']:36}"]
    for mode, found in ratios(record).items():
        parts.append(f"{mode}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    return "  ".join(parts)


def machine() -> dict[str, Any]:
    """Hardware and versions."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in PACKAGES},
    }


def installed(name: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def load(path: Path) -> dict[str, Any]:
    """Rows that are measured already."""
    return {r["row"]: r for r in json.loads(path.read_text())["records"]} if path.exists() else {}


def save(path: Path, records: list[dict[str, Any]]) -> None:
    """Rows with what they were measured on."""
    result = {"machine": machine(), "bound": BOUND, "records": records}
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """Measure rows, and save after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the result goes, as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5, help="time for each cell, or 20 rounds")
    parser.add_argument("--row", default="", help="only rows whose name holds this; others stay as they are")
    parser.add_argument("--missing", action="store_true", help="only rows that the result has not got")
    parser.add_argument("--mode", action="append", choices=MODES + COMPILED, help="may be repeated")
    parser.add_argument("--no-memory", action="store_true", help="measure time alone")
    options = parser.parse_args()
    found = load(options.out)
    order = [row.name for row in rows()]
    for name in order:
        if options.row not in name or (options.missing and name in found):
            continue
        found[name] = measured(name, tuple(options.mode or MODES), options)
        print(line(found[name]), flush=True)
        save(options.out, [found[n] for n in (*order, *(n for n in found if n not in order)) if n in found])


if __name__ == "__main__":
    main()
