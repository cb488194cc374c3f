"""The work of `tenfold demo`: one dense network, and many ways to make it smaller."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from tenfold.checkpoint import save
from tenfold.cli import asked
from tenfold.cli.bars import Bars
from tenfold.cli.images import first
from tenfold.cli.requests import recorded
from tenfold.cli.results import checked, circumstances, costs_note, layer_lines, measurements
from tenfold.cli.tuning import shuffled, tuned
from tenfold.compress import KroneckerFisher, Plan, Statistics, collect, compress, find_sites
from tenfold.compress.pipeline import renewed
from tenfold.core.atomic import replacing_folder
from tenfold.data import ImageData, digits
from tenfold.measure import Measurement
from tenfold.ranks import Budget, Lagrangian
from tenfold.report import LayerLine, Row, Table, write_html
from tenfold.zoo import digits_cnn

MARKER, NETWORK = ".tenfold-demo", "tenfold.zoo:digits_cnn"
BATCH, TRAINED, RATE = 64, 0.85, 2e-3
METRIC = KroneckerFisher()


@dataclass(frozen=True)
class Menu:
    """What is tried, and for how long."""

    presets: tuple[str, ...]
    keeps: tuple[float, ...]
    train_epochs: int
    tune_epochs: int


FULL = Menu(("tucker2", "cp3", "spatial_svd", "channel_svd", "tt_conv"), (0.3, 0.1, 0.03), 6, 5)
DENSE = {"features.0": None}
"""The first convolution has 0.2 % of the weights, and all that follows depends on it."""
QUICK = Menu(("tucker2", "spatial_svd"), (0.25,), 2, 1)


@dataclass(frozen=True, eq=False)
class Digits:
    """Three parts of the digits, normalized: to train on, to choose the epoch, and to report."""

    train: ImageData
    valid: ImageData
    test: ImageData


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to make the network smaller."""

    preset: str
    keep: float
    model: nn.Module
    plan: Plan
    layers: tuple[LayerLine, ...]
    accuracy_before: float

    @property
    def name(self) -> str:
        """Also the name of its folder."""
        return f"{self.preset}-{self.keep:g}"


@dataclass(frozen=True, eq=False)
class Showcase:
    """All of it, ready to be written."""

    dense: nn.Module
    variants: tuple[Variant, ...]
    table: Table
    scale: dict[str, tuple[float, ...]]
    seed: int


@contextmanager
def one_thread() -> Iterator[None]:
    """A network so small gains nothing from several, and on a busy machine they wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def shown(menu: Menu, seed: int, bars: Bars) -> Showcase:
    """Train, compress, tune, measure."""
    torch.manual_seed(seed)
    parts = _parts(seed)
    example = first(parts.test, BATCH)
    dense = _trained(menu, parts, seed, bars)
    with bars.bar("Calibrating"):
        sites = find_sites(dense, example)
        seen = collect(dense, parts.train.batches(BATCH), sites, want=METRIC.needs, seed=seed)
    asked_for = [(preset, keep) for preset in menu.presets for keep in menu.keeps]
    variants = tuple(
        _variant(dense, p, keep, parts, example, seen, menu, seed, bars) for p, keep in asked_for
    )
    models = {"dense": dense, **{v.name: v.model for v in variants}}
    costs = measurements(models, example, parts.test.batches(len(parts.test)), bars)
    table = _table(parts, example, variants, costs, seed)
    return Showcase(dense, variants, table, {"mean": parts.train.mean, "std": parts.train.std}, seed)


def _parts(seed: int) -> Digits:
    rest, test = digits()
    rest = rest.normalized()
    train, valid = rest.split(TRAINED, seed)
    return Digits(train, valid, test.normalized(rest.mean, rest.std))


def _trained(menu: Menu, parts: Digits, seed: int, bars: Bars) -> nn.Module:
    model = digits_cnn()
    _tune(model, parts, menu.train_epochs, "Training the dense network", seed, bars)
    return model


def _tune(model: nn.Module, parts: Digits, epochs: int, text: str, seed: int, bars: Bars) -> None:
    train, valid = shuffled(parts.train, BATCH, seed), parts.valid.batches(len(parts.valid))
    tuned(model, train, valid, epochs=epochs, lr=RATE, text=text, bars=bars)


def _variant(
    dense: nn.Module,
    preset: str,
    keep: float,
    parts: Digits,
    example: Tensor,
    statistics: Statistics,
    menu: Menu,
    seed: int,
    bars: Bars,
) -> Variant:
    text = f"{preset}, {keep:.0%}"
    with bars.bar(f"Fitting {text}") as bar:
        small, chosen, fits = compress(
            dense,
            Budget(params=keep),
            example=example,
            preset=preset,
            select=DENSE,
            rule=Lagrangian(),
            metric=METRIC,
            statistics=statistics,
            data=parts.train.batches(BATCH),
            seed=seed,
            progress=bar.at,
        )
    chosen = recorded(chosen, NETWORK, seed)
    before = checked(small, parts.test.batches(len(parts.test)), f"Testing {text}", bars)
    _tune(small, parts, menu.tune_epochs, f"Tuning {text}", seed, bars)
    lines = layer_lines(dense, chosen, renewed(fits, small, dense))
    return Variant(preset, keep, small, chosen, lines, before)


def _table(
    parts: Digits, example: Tensor, variants: tuple[Variant, ...], costs: dict[str, Measurement], seed: int
) -> Table:
    rows = tuple(
        Row.of(
            v.preset,
            costs[v.name],
            asked.in_words(Budget(params=v.keep)),
            accuracy_before=v.accuracy_before,
            layers=v.layers,
        )
        for v in variants
    )
    count = len(parts.test)
    notes = (
        f"Accuracy on {count} test digits, used for nothing else; one digit is {100 / count:.1f} %.",
        costs_note(example),
        "Factors and ranks are chosen by what they cost the loss on the training digits (K-FAC, Lagrangian).",
        "Budgets are of the three large convolutions; the first one and the classifier stay dense.",
    )
    return Table(
        "digits_cnn on scikit-learn's digits",
        Row.of("dense", costs["dense"]),
        rows,
        notes,
        circumstances(seed),
    )


def write(out: Path, result: Showcase) -> None:
    """A folder for each model, table.json and index.html, all of it or nothing."""
    with replacing_folder(out, MARKER) as folder:
        (folder / MARKER).write_text(version("tenfold") + "\n", encoding="utf-8")
        dense = recorded(Plan.of(result.dense), NETWORK, result.seed)
        save(result.dense, folder / "dense", dense, result.scale)
        for variant in result.variants:
            save(variant.model, folder / variant.name, variant.plan, result.scale)
        text = json.dumps(result.table.to_dict(), indent=2)
        (folder / "table.json").write_text(text + "\n", encoding="utf-8")
        write_html(result.table, folder / "index.html")
