"""Run cells of the study, or all, and go on where an earlier run stopped; see README.md.

python benchmarks/cifar10/run.py --model resnet18 --strategy pretrained_finetuned --method tenfold \\
    --keep 0.1 --data shared/data/cifar10 --out out/cifar10

The exit status is 0 when all cells are finished, and 3 when the time was up: run the same command again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

import cells
import machine
import torch
from bench import Bench, Mismatch, TimeUp
from cells import KEEPS, METHODS, MODELS, STRATEGIES, Cell, check_method
from folder import Folder
from images import DIGITS, load_data
from protocol import REDUCED, STUDY, Protocol

from tenfold.zoo import networks

TIME_UP = 3
DIGITS_MODEL, SMALL_MODEL = "digits_cnn", "resnet20"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--model", nargs="+", choices=[*networks, "all"], help="networks; all: the six of the study")
    add("--strategy", nargs="+", choices=[*STRATEGIES, "all"])
    add("--method", nargs="+", help=f"{', '.join(METHODS)}, all, dense, dense_distilled, or tenfold-PRESET")
    add("--keep", nargs="+", help="fractions, or all: 0.1, 0.2, 0.5, 0.8")
    add("--data", required=True, help="folder with train.parquet and test.parquet, or: digits")
    add("--out", type=Path, required=True, help="folder for results and for what is needed to go on")
    add("--dense", type=Path, help="the --out of another run, whose dense networks are to be used")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    add("--fit-device", help="where factors are fitted; the device where it is not given")
    add("--precision", choices=["no", "bf16"], help="of training; the faster one where it is not given")
    add("--minutes", type=float, help="stop after the epoch in which so many are over")
    add(
        "--reduced", action="store_true", help="few epochs of a small network, and a few cells, for two cores"
    )
    add("--epochs", type=int, help="of training from scratch")
    add("--tune-epochs", type=int, help="of tuning, at most")
    add("--tune-lr", type=float, help="the learning rate that tuning of ours starts at")
    add(
        "--tune-taught",
        type=float,
        help="how much the dense network weighs in tuning of ours, from 0: labels alone, to 1",
    )
    add("--schedule", choices=["constant", "cosine"], help="of the learning rate from scratch")
    add("--preset", help="what tenfold compresses with")
    add("--flops", type=float, help="the fraction of the FLOPs that tenfold may take, too")
    add(
        "--correct",
        action="store_true",
        default=None,
        help="let each layer of tenfold make up for those before it",
    )
    add("--images", type=int, help="train on no more than so many images")
    add("--seed", type=int)
    return made


def asked_protocol(options: argparse.Namespace) -> Protocol:
    """The protocol of the command line."""
    protocol = (REDUCED if options.reduced else STUDY).with_epochs(options.epochs, options.tune_epochs)
    if options.schedule:
        protocol = replace(protocol, train=replace(protocol.train, schedule=options.schedule))
    if options.tune_lr is not None:
        protocol = replace(protocol, own=replace(protocol.own, lr=options.tune_lr))
    if options.tune_taught is not None:
        protocol = replace(protocol, own=replace(protocol.own, taught=options.tune_taught))
    given = {name: getattr(options, name) for name in ("preset", "flops", "correct", "images", "seed")}
    return replace(
        protocol,
        augment=options.data != DIGITS,
        **{name: value for name, value in given.items() if value is not None},
    )


def asked_cells(options: argparse.Namespace) -> list[Cell]:
    """The cells of the command line; what is not given means all, or the reduced ones."""
    default = DIGITS_MODEL if options.data == DIGITS else SMALL_MODEL if options.reduced else "all"
    models = chosen(options.model or [default], MODELS)
    if options.reduced and not (options.strategy or options.method or options.keep):
        return [cell for model in models for cell in cells.reduced(model)]
    methods = [check_method(method) for method in chosen(options.method, METHODS)]
    keeps = [float(keep) for keep in chosen(options.keep, tuple(map(str, KEEPS)))]
    return cells.cells(models, chosen(options.strategy, STRATEGIES), methods, keeps)


def chosen(given: Sequence[str] | None, everything: Sequence[str]) -> Sequence[str]:
    """What is given, or everything."""
    return everything if given is None or "all" in given else given


def bench(options: argparse.Namespace, begun: float) -> Bench:
    """What the cells share."""
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    protocol = asked_protocol(options)
    options.out.mkdir(parents=True, exist_ok=True)
    return Bench(
        load_data(options.data, protocol, device),
        protocol,
        Folder(options.out),
        Folder(options.dense or options.out),
        device,
        torch.device(options.fit_device or device),
        options.precision or ("bf16" if machine.has_fast_bfloat16(device) else "no"),
        None if options.minutes is None else begun + 60 * options.minutes,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    begun, line = monotonic(), parser()
    options = line.parse_args(arguments)
    try:
        wanted = asked_cells(options)
        shared = bench(options, begun)
    except (ValueError, OSError) as error:
        line.error(str(error))
    try:
        for cell in wanted:
            shared.result(cell)
    except TimeUp:
        left = sum(shared.folder.read(cell) is None for cell in wanted)
        print(f"The time is up; {left} of {len(wanted)} cells are not finished.")
        return TIME_UP
    except Mismatch as error:
        line.error(str(error))
    print(f"All {len(wanted)} cells are finished.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
