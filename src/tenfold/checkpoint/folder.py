"""A checkpoint: a folder with plan.json and model.safetensors, never a pickle."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tenfold.checkpoint.arrays import read_arrays, write_arrays
from tenfold.checkpoint.header import read_header
from tenfold.checkpoint.joint import join_, joint_layers
from tenfold.checkpoint.ties import places_of_tied, tie_
from tenfold.compress.apply import apply_
from tenfold.compress.batches import tensors
from tenfold.compress.plan import LayerPlan, Plan
from tenfold.core.atomic import replacing_folder
from tenfold.core.errors import CheckpointError, TenfoldError
from tenfold.nn import FactorizedLayer

PLAN, ARRAYS, EXTRA, REPORT = "plan.json", "model.safetensors", "extra.json", "report"
CONTENT = PLAN, ARRAYS, EXTRA, REPORT
"""All that may lie in a folder that is replaced: a folder with anything else is not a checkpoint alone."""


def save(
    model: nn.Module, directory: str | Path, plan: Plan | None = None, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write a compressed model to a folder, all of it or nothing; an older checkpoint there is replaced.

    `plan` is the one that was applied, for its methods and provenance; without it, one is read off the
    model. `extra` is anything JSON can hold, written beside it. Layers of one tensor, as `tenfold.nn.joint`
    makes them, are in no plan: they are described beside the arrays, and what they share is stored once.

    >>> import tempfile
    >>> from tenfold.compress import compress
    >>> from tenfold.ranks import Budget
    >>> def net():
    ...     return nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    >>> x = torch.randn(1, 8, 9, 9)
    >>> small, plan, _ = compress(net(), Budget(params=0.5), example=x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(small, f"{folder}/small", plan)
    ...     torch.equal(load(net, f"{folder}/small")(x), small(x))
    True
    """
    plan = Plan.of(model) if plan is None else plan
    _check_described(model, plan)
    with replacing_folder(directory, PLAN, CONTENT) as folder:
        write_arrays(model, folder / ARRAYS)
        (folder / PLAN).write_text(plan.to_json(), encoding="utf-8")
        if extra is not None:
            (folder / EXTRA).write_text(json.dumps(extra, indent=2) + "\n", encoding="utf-8")
    return Path(directory)


def load(
    architecture: Callable[[], nn.Module] | nn.Module, directory: str | Path, device: Any = "cpu"
) -> nn.Module:
    """The model that `save` wrote, in evaluation mode.

    `architecture` builds the *dense* model (its weights do not matter), or is one, which is then changed in
    place. It is built on the meta device, so that no dense weight is ever allocated; if it holds tensors that
    no state dict has, or looks at numbers while it is built, it is built on `device`.

    Raises:
        CheckpointError: if the folder is no checkpoint, or does not fit the architecture.
    """
    folder = Path(directory)
    plan = Plan.load(_present(folder / PLAN))
    arrays = _present(folder / ARRAYS)
    if isinstance(architecture, nn.Module):
        return _filled(architecture, plan, arrays).to(device).eval()
    model = _built_on_meta(architecture)
    model = None if model is None else _filled(model, plan, arrays)
    if model is None or _has_meta(model):
        with torch.device(device):
            model = _filled(architecture(), plan, arrays)
    return model.to(device).eval()


def _built_on_meta(architecture: Callable[[], nn.Module]) -> nn.Module | None:
    """The architecture without memory; None if its constructor looks at numbers."""
    try:
        with torch.device("meta"):
            return architecture()
    except (RuntimeError, NotImplementedError):
        return None


def _has_meta(model: nn.Module) -> bool:
    """Whether a tensor of the model, in its state or an attribute, is still on the meta device."""
    held = (tensor for module in model.modules() for tensor in tensors([*vars(module).values()]))
    return any(t.is_meta for t in (*model.parameters(), *model.buffers(), *held))


def _filled(model: nn.Module, plan: Plan, arrays: Path) -> nn.Module:
    joint = read_header(arrays).joint
    try:
        join_(model, joint)
        apply_(model, plan, fit=False)
    except TenfoldError as error:
        raise CheckpointError(
            f"the checkpoint '{arrays.parent}' does not fit the architecture: {error.problem}",
            "Give the architecture that was compressed.",
        ) from error
    try:
        tied = places_of_tied(model)
        model.load_state_dict(read_arrays(arrays, model), assign=True)
        tie_(model, tied)
    except RuntimeError as error:
        raise CheckpointError(
            f"the arrays of '{arrays}' do not fit the architecture: {error}",
            "Give the architecture that was compressed.",
        ) from error
    return model


def _present(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(
            f"'{path.parent}' is no checkpoint: it has no {path.name}.", "Give a folder that tenfold wrote."
        )
    return path


def _check_described(model: nn.Module, plan: Plan) -> None:
    """Raise CheckpointError unless the plan says the format, layout and ranks that the model has."""
    if joint := next((name for name, _ in joint_layers(model) if name in plan.layers), None):
        raise CheckpointError(
            f"the plan describes '{joint}', which shares factors with other layers.",
            "Save without the plan, or with one that has no joint layers.",
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in plan.layers:
        if not isinstance(modules.get(name), FactorizedLayer):
            raise CheckpointError(
                f"the plan describes '{name}', which is no factorized layer of the model.",
                "Save without the plan, or with the one that was applied.",
            )
    for name, ps in Plan.of(model).layers.items():
        own = ps["weight"]
        given = plan.layers.get(name, {}).get("weight")
        if given is None or _described(given) != _described(own):
            raise CheckpointError(
                f"the plan does not describe '{name}' as it is.", "Save with the plan applied."
            )


def _described(layer: LayerPlan) -> tuple[object, ...]:
    """What a layer's modules and parameters depend on."""
    return layer.format, layer.layout, dict(layer.ranks), layer.pivoted
