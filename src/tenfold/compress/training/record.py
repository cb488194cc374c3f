"""The state of a training towards a format, in one file after each round."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tenfold.compress.plan import Plan
from tenfold.compress.recovery.record_file import Facts, Tensors, named, read, rewind, under, write
from tenfold.compress.recovery.resume import alike, described, difference, draws, redraw, sketch
from tenfold.compress.training.alternate import Round, State
from tenfold.core.atomic import check_file
from tenfold.core.errors import CheckpointError, TenfoldError

FORMAT = "tenfold-towards-1"


@dataclass(frozen=True)
class Record:
    """Writes and reads a run; `asked` and `start` have to be the same when it goes on."""

    path: Path
    model: nn.Module
    generators: Sequence[torch.Generator]
    asked: Facts
    start: dict[str, float]

    @staticmethod
    def of(path: Path, model: nn.Module, generators: Sequence[torch.Generator], asked: Facts) -> "Record":
        """The record of a run that begins with the model as it is, or went on from there."""
        return Record(
            path, model, generators, asked | {"model": described(model)}, sketch(model.state_dict())
        )

    def save(self, state: State) -> None:
        """Replace the file by the state after a round."""
        facts = {
            "asked": self.asked,
            "start": self.start,
            "plan": state.plan.to_json(),
            "trace": [asdict(told) for told in state.trace],
        }
        tensors = named("model", self.model.state_dict()) | named("wanted", state.wanted)
        tensors |= named("dual", state.dual) | named("draws", draws(self.model, self.generators))
        write(self.path, FORMAT, facts, tensors)

    def rewind(self) -> None:
        """Give the model the weights of the file, from which the run can go on; if there is none, nothing."""
        rewind(self.path, FORMAT, self.model)

    def load(self) -> State | None:
        """Bring model and draws to where the file left them; None if there is no file.

        Raises:
            CheckpointError: if the file is not such a record, or of another model or other options.
        """
        check_file(self.path)
        if not self.path.exists():
            return None
        facts, tensors = read(self.path, FORMAT)
        self._check(facts, tensors)
        self.start.clear()
        self.start.update(facts["start"])  # those weights begin the run, whatever it goes on with
        try:
            return self._restored(facts, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, TenfoldError) as error:
            raise CheckpointError(
                f"'{self.path}' is no complete record of this training: {error!r}.",
                "Remove it, or name another file, to start anew.",
            ) from error

    def _restored(self, facts: Facts, tensors: Tensors) -> State:
        plan, trace = Plan.from_json(facts["plan"]), tuple(Round(**told) for told in facts["trace"])
        wanted, dual = (self._placed(under(kind, tensors)) for kind in ("wanted", "dual"))
        self.model.load_state_dict(under("model", tensors))
        redraw(self.model, self.generators, under("draws", tensors))
        return State(plan, wanted, dual, trace)

    def _placed(self, tensors: Tensors) -> Tensors:
        return {name: self._like(name, tensor) for name, tensor in tensors.items()}

    def _like(self, name: str, tensor: Tensor) -> Tensor:
        """On the device of the weight, and in its memory order."""
        return torch.empty_like(self.model.get_parameter(name), requires_grad=False).copy_(tensor)

    def _check(self, facts: Facts, tensors: Tensors) -> None:
        if changed := difference(facts.get("asked"), json.loads(json.dumps(self.asked))):
            raise CheckpointError(
                f"'{self.path}' is of another training: {changed}.",
                "Give the same model and options as then, or name another file to start anew.",
            )
        starts = facts.get("start", {}), sketch(under("model", tensors))
        if not any(alike(self.start, start) for start in starts):
            raise CheckpointError(
                f"'{self.path}' is of a training with other weights at its start.",
                "Start with the same weights as then, or name another file to start anew.",
            )
