"""The folder of a run: a JSON file for each finished cell, and under work/ what is needed to go on.

    name.json                the result of a cell
    work/models/name/        a trained dense network
    work/starts/name/        a factorized network before tuning
    work/states/name.*       the state of a training that is not finished

Everything is written whole or not at all, so a run may be killed at any moment.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import Cell

from tenfold.core.atomic import write_text


@dataclass(frozen=True)
class Folder:
    """Where the files of each cell are."""

    root: Path

    def result(self, cell: Cell) -> Path:
        """What was measured."""
        return self.root / f"{cell.name}.json"

    def model(self, cell: Cell) -> Path:
        """The trained network, where others need it."""
        return self._under("models") / cell.name

    def start(self, cell: Cell) -> Path:
        """The factorized network before tuning."""
        return self._under("starts") / cell.start

    def state(self, cell: Cell) -> Path:
        """The state after the last epoch of a training."""
        return self._under("states") / f"{cell.name}.safetensors"

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """The result, if the cell is finished."""
        path = self.result(cell)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, cell: Cell, result: dict[str, Any]) -> None:
        """Write the result; the state of the training is not needed any more."""
        write_text(self.result(cell), json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        self.state(cell).unlink(missing_ok=True)

    def _under(self, kind: str) -> Path:
        folder = self.root / "work" / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def results(source: Path) -> list[dict[str, Any]]:
    """All results of a folder, or of a file that holds a list of them."""
    if source.is_dir():
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(source.glob("*.json"))]
    return json.loads(source.read_text(encoding="utf-8"))
