"""Ranks that were tried and what they lose, kept in a file so that a killed search goes on."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.core.atomic import StrPath, check_file, write_text
from tenfold.core.errors import CheckpointError, DataError
from tenfold.ranks.candidate import Allotment

FORMAT = "tenfold-search-1"
Shares = Mapping[str, float]
"""Site -> by how much its share differs from the centre, in powers of two."""


@dataclass(frozen=True)
class Trial:
    """The shares that were proposed (empty for a start), the ranks, and the loss, infinite if it failed."""

    shares: Shares
    ranks: Mapping[str, Allotment]
    loss: float


class Trials:
    """The trials of one search in order, of which the first ones may come from a record.

    `asked` is what has to be the same when a record goes on, as JSON takes it. After so many `starts`, trials
    have shares for `sites`, within ± `spread`.

    Raises:
        CheckpointError: if the record is something else, or of another search.
        TargetError: if it cannot be written.
    """

    def __init__(
        self,
        evaluate: Callable[[Mapping[str, Allotment]], float],
        path: StrPath | None,
        asked: Any,
        starts: int,
        sites: Sequence[str],
        spread: float,
    ) -> None:
        self.evaluate, self.path, self.asked = evaluate, None if path is None else Path(path), asked
        self.done: list[Trial] = []
        if self.path is not None:
            check_file(self.path)
        self._recorded = _read(self.path, asked)
        for k, (shares, _) in enumerate(self._recorded):
            wanted = sites if k >= starts else ()
            if set(shares) != set(wanted) or any(abs(x) > spread for x in shares.values()):
                raise CheckpointError(
                    f"trial {k} of the record '{self.path}' has the shares {shares}.",
                    "It is spoilt: delete it, or remove this trial and those after it.",
                )

    def recorded(self) -> Shares | None:
        """The shares of the next trial, if it is in the record."""
        return self._recorded[len(self.done)][0] if len(self.done) < len(self._recorded) else None

    def add(self, shares: Shares, ranks: Mapping[str, Allotment]) -> Trial:
        """One trial more, measured unless its loss is known; written to the record at once."""
        new = self.recorded() is None
        loss = self._loss(ranks) if new else self._recorded[len(self.done)][1]
        trial = Trial(shares, ranks, loss)
        self.done.append(trial)
        if new and self.path is not None:
            write_text(self.path, self._text())
        return trial

    def best(self) -> Trial:
        """The trial of least loss, the first of equals; raises DataError if all failed."""
        best = min(self.done, key=lambda trial: trial.loss)
        if best.loss == math.inf:
            raise DataError(
                f"none of {len(self.done)} trials gave a finite loss.", "Check what `evaluate` returns."
            )
        return best

    def _loss(self, ranks: Mapping[str, Allotment]) -> float:
        for trial in self.done:
            if trial.ranks == ranks:
                return trial.loss
        value = self.evaluate(ranks)
        try:
            loss = float(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"evaluate gave {value!r}.", "Let it return a number, small if good.") from error
        return loss if math.isfinite(loss) else math.inf

    def _text(self) -> str:
        trials = [
            {"shares": dict(t.shares), "loss": t.loss if t.loss < math.inf else None} for t in self.done
        ]
        return json.dumps({"format": FORMAT, "asked": self.asked, "trials": trials}, indent=1) + "\n"


def _read(path: Path | None, asked: Any) -> list[tuple[Shares, float]]:
    if path is None or not path.exists() or not path.stat().st_size:
        return []
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        losses = [math.inf if t["loss"] is None else float(t["loss"]) for t in data["trials"]]
        shares = [{str(site): float(x) for site, x in t["shares"].items()} for t in data["trials"]]
        if data["format"] != FORMAT or any(map(math.isnan, losses)):
            raise ValueError("it is of another kind, or spoilt")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"'{path}' is no record of a search: {error!r}.", "Give another file, or delete this one."
        ) from error
    if data["asked"] != json.loads(json.dumps(asked)):
        differing = sorted(k for k in asked if data["asked"].get(k) != json.loads(json.dumps(asked[k])))
        raise CheckpointError(
            f"'{path}' is the record of another search: {', '.join(differing)} differ.",
            "Search as then, or give another file.",
        )
    return list(zip(shares, losses, strict=True))
