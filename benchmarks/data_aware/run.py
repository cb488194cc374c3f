"""What each use of the data gains on a trained ResNet-20, without tuning; see README.md.

python benchmarks/data_aware/run.py --data train.parquet --test-data test.parquet \
    --weights resnet20.safetensors --out result.json
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn
from variants import KEEPS, PRESETS, VARIANTS, Variant

from tenfold.compress import (
    KroneckerFisher,
    Plan,
    Statistics,
    apply_,
    collect,
    correct_,
    find_sites,
    plan,
    reconstruct_,
    reestimate_batchnorm_,
)
from tenfold.core.atomic import write_text
from tenfold.data import ImageBatches, ImageData, open_data
from tenfold.measure import accuracy
from tenfold.zoo import networks

CALIBRATE, BATCH, STEP, HELD_OUT = 2000, 250, 50, 0.1
"""Training images to look at, how many at once, and in a step of rebuilding; what is held out of training."""
RIDGE, RATE = 1e-3, 2e-3
"""Of `correct_`, whose default is firmer, and of `reconstruct_`: chosen on images held out of training."""


def compressed(
    dense: nn.Module, preset: str, keep: float, variant: Variant, seen: Statistics, images: ImageData
) -> tuple[nn.Module, int]:
    """The model by one variant, and the elements that its sites store."""
    data = images.batches(BATCH)
    example = next(iter(data))[0][:1]
    statistics = seen if variant.metric else None
    chosen = plan(
        dense,
        variant.budget(keep),
        example=example,
        preset=preset,
        rule=variant.rule,
        metric=variant.metric,
        statistics=statistics,
    )
    small = deepcopy(dense)
    fits = apply_(small, chosen, statistics=statistics)
    done = corrected(small, dense, chosen, data, statistics, variant.rounds)
    if variant.norms:
        reestimate_batchnorm_(small, data, keep=done)
    if variant.rebuilt:
        reconstruct_(
            small,
            dense,
            images.batches(STEP),
            stages(dense),
            epochs=variant.rebuilt,
            lr=RATE,
            inputs="small",
            stored=True,
        )
    stored = sum(f.stored for f in fits)
    return small, stored + sum(s.numel for s in find_sites(dense, example) if s.name in chosen.dense)


def corrected(
    small: nn.Module,
    dense: nn.Module,
    chosen: Plan,
    data: ImageBatches,
    statistics: Statistics | None,
    rounds: int | None,
) -> set[str]:
    """Correct in place; the batch norms whose means are set."""
    if rounds is None:
        return set()
    done = correct_(
        small,
        dense,
        chosen,
        data,
        statistics=statistics,
        ridge=RIDGE,
        rounds=rounds,
        dense_too=rounds > 0,
    )
    return {site.norm for site in done if site.norm}


def stages(model: nn.Module) -> list[str]:
    """The parts of the network that are made of others, in order: `layer1`, `layer2`, … of a ResNet."""
    return [name for name, part in model.named_children() if list(part.children())]


def environment() -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tenfold": version("tenfold"),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Run the cells that are asked for and not yet in the result, which is written after each."""
    args = arguments()
    dense = networks[args.model]()
    load(dense, args.weights)
    train = open_data(args.data).normalized()
    fitted, held_out = train.split(1 - HELD_OUT, seed=0)
    judged = held_out
    if args.test_data:
        test = open_data(args.test_data).normalized(train.mean, train.std)
        judged = test.split(args.images / len(test), seed=0)[0] if args.images < len(test) else test
    images = fitted.split(CALIBRATE / len(fitted), seed=0)[0]
    data = images.batches(BATCH)
    example = next(iter(data))[0][:1]
    dense.eval().to(memory_format=torch.channels_last)
    result = known(args.out) or {"environment": environment(), "model": args.model, "cells": []}
    result |= {"images": len(judged), "judged": "test" if args.test_data else "held out of training"}
    result["dense"] = 100 * accuracy(dense, judged.batches(BATCH))
    print(f"dense {result['dense']:.2f} %", flush=True)
    seen = collect(dense, data, find_sites(dense, example), want=KroneckerFisher.needs)
    for preset in args.presets:
        for keep in args.keeps:
            for name in args.variants:
                cell = {"preset": preset, "keep": keep, "variant": name}
                if any(cell.items() <= c.items() for c in result["cells"]):
                    continue
                start = perf_counter()
                small, stored = compressed(dense, preset, keep, VARIANTS[name], seen, images)
                seconds = perf_counter() - start
                lost = result["dense"] - 100 * accuracy(small, judged.batches(BATCH))
                cell |= {"stored": stored, "lost": round(lost, 2), "seconds": round(seconds, 1)}
                print(f"{preset:12s} {keep} {name:18s} lost {lost:6.2f} points, {seconds:.1f} s", flush=True)
                result["cells"].append(cell)
                write_text(args.out, json.dumps(result, indent=1) + "\n")


def load(model: nn.Module, path: Path) -> None:
    """Weights as `tenfold train` writes them."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path))


def known(path: Path) -> dict[str, Any] | None:
    """A result that is there already."""
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="training images")
    parser.add_argument("--test-data", help="test images; without, a tenth of --data, held out, judges")
    parser.add_argument("--images", type=int, default=10_000, help="test images that judge, drawn at random")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="resnet20", choices=list(networks))
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--keeps", nargs="+", type=float, default=list(KEEPS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
