"""A checkpoint on the command line: its plan, what was noted beside it, and which architecture it is of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tenfold.checkpoint import load
from tenfold.checkpoint.folder import EXTRA, PLAN
from tenfold.cli.images import Scale, noted_scale
from tenfold.cli.models import build, is_ours
from tenfold.compress import Plan
from tenfold.core.errors import CheckpointError, ModelError, OptionError


@dataclass(frozen=True)
class Saved:
    """A folder, its plan and its notes."""

    folder: Path
    plan: Plan
    notes: Mapping[str, Any]

    @property
    def preset(self) -> str:
        """The preset that was asked for."""
        wanted = self.plan.provenance.request.get("preset") or "dense"
        names = wanted if isinstance(wanted, list | tuple) else [wanted]
        return ", ".join(map(str, names)) if self.plan.layers else "dense"

    def architecture(self, given: str | None) -> str:
        """MODEL as given; as noted in the plan only if it is one of our own networks.

        Raises:
            ModelError: if none was given, and the one that is noted is not ours, or there is none.
        """
        noted = self.plan.provenance.request.get("model")
        if given is not None:
            return given
        if is_ours(noted):
            return str(noted)
        if noted is None:
            raise ModelError(f"'{self.folder}' does not say of which model it is.", "Say it: --model MODEL.")
        raise ModelError(
            f"'{self.folder}' is of the model '{noted}', which is not imported because a file says so.",
            f"If you trust that code, add: --model {noted}",
        )

    def scale(self) -> Scale:
        """What its inputs are normalized with; raises OptionError if that is not noted."""
        scale = noted_scale(self.notes, "the checkpoint")
        if scale is None:
            raise OptionError(
                f"'{self.folder}' does not say how its inputs are normalized.",
                "Give --mean and --std as in training (--mean 0 --std 1 if pixels were only divided by 255).",
            )
        return scale

    def network(self, text: str) -> nn.Module:
        """The model with its weights."""
        return load(build(text), self.folder)


def opened(folder: Path) -> Saved:
    """Read plan and notes.

    Raises:
        CheckpointError: if the folder is no checkpoint, or its notes are no JSON object.
    """
    if not (folder / PLAN).is_file():
        raise CheckpointError(
            f"'{folder}' is no checkpoint: it has no {PLAN}.", "Give one that tenfold wrote."
        )
    plan, path = Plan.load(folder / PLAN), folder / EXTRA
    try:
        notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}.", "Write the checkpoint anew.") from error
    return Saved(folder, plan, notes if isinstance(notes, dict) else {})
