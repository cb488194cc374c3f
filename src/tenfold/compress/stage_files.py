"""The state of compression in stages, as it is while a run goes on and as files in its folder."""

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tenfold.compress.apply import apply_
from tenfold.compress.plan import Plan
from tenfold.compress.recovery.record_file import Facts, Tensors, named, read, under, write
from tenfold.compress.recovery.resume import alike, described, difference, draws, redraw, sketch
from tenfold.core.atomic import StrPath
from tenfold.core.errors import CheckpointError, TargetError, TenfoldError
from tenfold.ranks import Budget

FORMAT = "tenfold-stages-1"


@dataclass(frozen=True)
class StageResult:
    """One stage: its plan, the parameters of the whole model, and its metric before and after tuning."""

    number: int
    budget: Budget
    plan: Plan
    parameters: int
    compressed: float | None
    tuned: float | None


@dataclass(frozen=True)
class State:
    """A model after so many stages; `begun` is the one that is compressed but not tuned."""

    model: nn.Module
    done: tuple[StageResult, ...]
    begun: StageResult | None


@dataclass(frozen=True)
class Files:
    """The files of a run; `asked` and `start` have to be the same when it goes on."""

    folder: Path
    dense: nn.Module
    generators: Sequence[torch.Generator]
    asked: Facts
    start: dict[str, float]

    def tuning(self, number: int) -> Path:
        """For the state of the tuning of a stage."""
        return self.folder / f"stage-{number:02d}-tuning.safetensors"

    def stage(self, number: int) -> Path:
        """For the model of a stage, first compressed, then tuned."""
        return self.folder / f"stage-{number:02d}.safetensors"

    def save(self, state: State) -> None:
        """Write the file of the latest stage.

        Raises:
            CheckpointError: if the model is not what its plan makes of the dense one, so that it could not be
                read again.
        """
        latest = state.begun or state.done[-1]
        if state.begun is not None:
            self._check_planned(state.model, state.begun.plan)
        facts = {
            "asked": self.asked,
            "start": self.start,
            "done": [_to_json(result) for result in state.done],
            "begun": None if state.begun is None else _to_json(state.begun),
        }
        tensors = named("model", state.model.state_dict()) | named(
            "draws", draws(state.model, self.generators)
        )
        write(self.stage(latest.number), FORMAT, facts, tensors)

    def _check_planned(self, model: nn.Module, plan: Plan) -> None:
        twin = deepcopy(self.dense)
        apply_(twin, plan, fit=False)
        if changed := difference(described(twin), described(model)):
            raise CheckpointError(
                f"The compressed model is not what its plan makes of the dense one: {changed}.",
                "Let `compress` change no more than the plan says, or leave out the folder.",
            )

    def load(self) -> State:
        """What the file of the latest stage holds; the beginning if there is none."""
        numbers = [n for n in range(1, len(self.asked["budgets"]) + 1) if self.stage(n).exists()]
        if not numbers:
            return State(self.dense, (), None)
        path = self.stage(numbers[-1])
        facts, tensors = read(path, FORMAT)
        self._check(path, facts)
        try:
            return self._restored(facts, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, TenfoldError) as error:
            raise CheckpointError(
                f"'{path}' is no complete record of a stage: {error!r}.",
                "Remove it, to begin with the stage before, or name another folder.",
            ) from error

    def _restored(self, facts: Facts, tensors: Tensors) -> State:
        done = tuple(map(_from_json, facts["done"]))
        begun = None if facts["begun"] is None else _from_json(facts["begun"])
        model = deepcopy(self.dense)
        apply_(model, (begun or done[-1]).plan, fit=False)
        model.load_state_dict(under("model", tensors))
        redraw(model, self.generators, under("draws", tensors))
        return State(model, done, begun)

    def _check(self, path: Path, facts: Facts) -> None:
        changed = difference(facts.get("asked"), json.loads(json.dumps(self.asked)))
        if changed or not alike(self.start, facts.get("start", {})):
            raise CheckpointError(
                f"'{path}' is of another run: {changed or 'the model had other weights at its start'}.",
                "Give the same model and budgets as then, or name another folder to start anew.",
            )


def files_in(
    folder: StrPath, dense: nn.Module, budgets: Sequence[Budget], generators: Sequence[torch.Generator]
) -> Files:
    """The files of a run in a folder, which is made unless it is there.

    Raises:
        TargetError: if it cannot be made.
    """
    try:
        Path(folder).mkdir(exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"'{folder}' cannot be made: {error.strerror or error}.",
            "Name a folder, new or of an earlier run, in one that is there.",
        ) from error
    asked = {"model": described(dense), "budgets": [asdict(budget) for budget in budgets]}
    return Files(Path(folder), dense, generators, asked, sketch(dense.state_dict()))


def _to_json(result: StageResult) -> dict[str, Any]:
    return vars(result) | {"budget": asdict(result.budget), "plan": result.plan.to_json()}


def _from_json(data: dict[str, Any]) -> StageResult:
    return StageResult(**data | {"budget": Budget(**data["budget"]), "plan": Plan.from_json(data["plan"])})
