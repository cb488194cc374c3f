"""Running a cell: the dense network first, then what the cell starts from, then training, then the test."""

import json
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any

import machine
import torch
from cells import SCRATCH, Cell, baseline
from folder import Folder
from images import TEST_BATCH, Data, shuffled
from protocol import Protocol, Recipe
from starts import made, untrained
from torch import nn

from tenfold import load, save, tune
from tenfold.compress import Epoch, Tuned
from tenfold.compress.recovery.processes import Precision
from tenfold.core.errors import DivergedError
from tenfold.measure import accuracy, flops
from tenfold.measure.size import parameters
from tenfold.zoo import networks


class TimeUp(Exception):
    """The time given to a run is over; all that was done is kept."""


class Mismatch(Exception):
    """A finished cell was measured, or its network made, under another protocol."""


@dataclass(frozen=True)
class Bench:
    """What all cells of a run share.

    Factors are fitted on the `fit_device`, networks trained on the `device`. `end` is in seconds of
    `monotonic`, None if there is no hurry.
    """

    data: Data
    protocol: Protocol
    folder: Folder
    dense: Folder
    device: torch.device
    fit_device: torch.device
    precision: Precision
    end: float | None = None

    def result(self, cell: Cell) -> dict[str, Any]:
        """The result of a cell, measured if it is not there yet.

        Raises:
            TimeUp: when the time is over, after an epoch or a step that is kept.
            Mismatch: if it is there, but of another protocol.
        """
        folder = self._folder(cell)
        found = folder.read(cell)
        if found is None:
            found = self._measured(cell, folder)
            folder.finish(cell, found)
            print(f"{cell.name}: {found['accuracy']:.2%} with {found['parameters']:,} parameters", flush=True)
            self._check_time()
        elif found["protocol"] != json.loads(json.dumps(self.protocol.of(cell))):
            raise Mismatch(
                f"{folder.result(cell)} was measured under another protocol: {found['protocol']} instead of "
                f"{self.protocol.of(cell)}. Use another folder, or the options of then."
            )
        return found

    def _folder(self, cell: Cell) -> Folder:
        return self.dense if cell == baseline(cell.model) else self.folder

    def _measured(self, cell: Cell, folder: Folder) -> dict[str, Any]:
        is_baseline = cell == baseline(cell.model)
        dense = None if is_baseline else self.result(baseline(cell.model))
        model, notes = self._start(cell)
        recipe = self.protocol.recipe(cell)
        training = None if recipe is None else self._training(cell, model, recipe, folder)
        begun = perf_counter()
        found = accuracy(model, self.data.test.batches(TEST_BATCH))
        notes |= {"test_seconds": round(perf_counter() - begun, 2)}
        if is_baseline:
            save(model, folder.model(cell))
        return {
            "model": cell.model,
            "strategy": cell.strategy,
            "method": cell.method,
            "keep": cell.keep,
            "accuracy": found,
            "dense_accuracy": found if dense is None else dense["accuracy"],
            "parameters": parameters(model),
            "dense_parameters": parameters(model) if dense is None else dense["parameters"],
            "flops": flops(model, self.data.example[:1]),
            "dense_flops": flops(self._placed(self._network(cell.model)()), self.data.example[:1]),
            "start": notes,
            "training": training,
            "protocol": self.protocol.of(cell),
            "precision": self.precision,
            "data": self.data.described(),
            "machine": machine.described(self.device),
        }

    def _start(self, cell: Cell) -> tuple[nn.Module, dict[str, Any]]:
        """The network before training: a dense one, or a factorized one that is made once and kept."""
        if cell.is_dense:
            return self._dense(cell), {}
        path, protocol = self.folder.start(cell), self.protocol.start(cell)
        if not path.exists():
            dense = self._dense(cell).to(self.fit_device)
            start = made(cell, dense, self.data.on(self.fit_device), self.protocol)
            save(start.model, path, start.plan, start.notes | {"protocol": protocol})
            self._check_time()
        notes = json.loads((path / "extra.json").read_text(encoding="utf-8"))
        if (found := notes.pop("protocol", None)) != protocol:
            raise Mismatch(
                f"{path} was made under another protocol: {found} instead of {protocol}. Use another folder, "
                "or the options of then."
            )
        return self._placed(load(self._network(cell.model), path)), notes

    def _dense(self, cell: Cell) -> nn.Module:
        """The trained dense network, or an untrained one where the cell trains from scratch."""
        if cell.strategy == SCRATCH:
            return self._placed(untrained(cell.model, self.data.classes, self.protocol.seed))
        return self._trained_dense(cell.model)

    def _trained_dense(self, model: str) -> nn.Module:
        return self._placed(load(self._network(model), self.dense.model(baseline(model))))

    def _network(self, model: str) -> Any:
        return lambda: networks[model](self.data.classes)

    def _placed(self, model: nn.Module) -> nn.Module:
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _training(self, cell: Cell, model: nn.Module, recipe: Recipe, folder: Folder) -> dict[str, Any]:
        """Train or tune in place, and say how it went; a network that diverged keeps its best weights."""
        try:
            return trace(self._trained(cell, model, recipe, folder))
        except DivergedError as error:
            return {"diverged": error.problem}

    def _trained(self, cell: Cell, model: nn.Module, recipe: Recipe, folder: Folder) -> Tuned:
        """From the start, or from the last epoch of an earlier run."""

        def told(epoch: Epoch) -> None:
            print(f"{cell.name}: {sentence(epoch, recipe)}", flush=True)
            self._check_time()

        torch.manual_seed(self.protocol.seed)
        return tune(
            model,
            shuffled(self.data, self.protocol),
            self.data.valid.batches(TEST_BATCH),
            epochs=recipe.epochs,
            lr=recipe.lr,
            schedule=recipe.schedule,
            patience=recipe.patience,
            teacher=self._trained_dense(cell.model) if recipe.taught else None,
            distillation=recipe.distillation,
            precision=self.precision,
            resume=folder.state(cell),
            progress=told,
        )

    def _check_time(self) -> None:
        if self.end is not None and monotonic() >= self.end:
            raise TimeUp


def sentence(epoch: Epoch, recipe: Recipe) -> str:
    """What to tell of an epoch."""
    return (
        f"epoch {epoch.number} of {recipe.epochs}, training loss {epoch.train_loss:.3f}, "
        f"validation {epoch.valid_accuracy or 0:.2%}, {epoch.seconds:.1f} s"
    )


def trace(tuned: Tuned) -> dict[str, Any]:
    """How training went, for JSON."""
    epochs = [
        {
            "train_loss": round(epoch.train_loss, 4),
            "valid_loss": round(epoch.valid_loss or 0.0, 4),
            "valid_accuracy": round(epoch.valid_accuracy or 0.0, 4),
            "seconds": round(epoch.seconds, 2),
        }
        for epoch in tuned.trace
    ]
    return {
        "epochs": len(epochs),
        "best": tuned.best,
        "stopped_early": tuned.stopped_early,
        "seconds": round(sum(epoch["seconds"] for epoch in epochs), 1),
        "trace": epochs,
    }
