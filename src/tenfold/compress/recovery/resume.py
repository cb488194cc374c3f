"""The state of a training run in one file, so that a killed run goes on where it was.

Weights, optimizer, random number generators and best weights are its tensors; what was asked for and the
trace are its facts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.recovery.best import Best
from tenfold.compress.recovery.record_file import Facts, Tensors, named, read, rewind, under, write
from tenfold.compress.recovery.trace import Epoch
from tenfold.core.atomic import check_file
from tenfold.core.errors import CheckpointError

FORMAT = "tenfold-tuning-1"
CLOSE = 1e-3


@dataclass(frozen=True)
class Record:
    """Writes and reads a run: what is training, and `asked`, which has to be the same in both."""

    path: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    generators: tuple[torch.Generator, ...]
    best: Best
    asked: Mapping[str, Any]
    start: dict[str, float]
    teacher: Mapping[str, float]

    def save(self, trace: Iterable[Epoch]) -> None:
        """Replace the file by the state after the last epoch of `trace`."""
        numbers, moments = flattened(self.optimizer)
        facts = {
            "asked": self.asked,
            "start": self.start,
            "teacher": self.teacher,
            "trace": [asdict(epoch) for epoch in trace],
            "best": [self.best.number, self.best.loss],
            "optimizer": numbers,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
        }
        tensors = named("model", self.model.state_dict()) | named("best", self.best.weights or {})
        tensors |= named("draws", draws(self.model, self.generators)) | named("optimizer", moments)
        write(self.path, FORMAT, facts, tensors)

    def load(self) -> list[Epoch]:
        """Bring everything to where the file left it; the trace so far, empty if there is no file.

        Raises:
            CheckpointError: if the file is not such a record, or of another model or other options.
        """
        check_file(self.path)
        if not self.path.exists():
            return []
        facts, tensors = read(self.path, FORMAT)
        try:
            self._check(facts, tensors)
            self.start.clear()
            self.start.update(facts["start"])  # those weights begin the run, whatever it goes on with
            self._restore(facts, tensors)
            return [Epoch(**epoch) for epoch in facts["trace"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"'{self.path}' is no complete record of this training: {error!r}.",
                "Remove it, or name another file, to start anew.",
            ) from error

    def _restore(self, facts: Facts, tensors: Tensors) -> None:
        self.model.load_state_dict(under("model", tensors))
        self.best.number, self.best.loss = facts["best"]
        self.best.weights = _placed(under("best", tensors), self.model.state_dict()) or None
        unflatten(self.optimizer, facts["optimizer"], under("optimizer", tensors))
        if self.scaler is not None:
            self.scaler.load_state_dict(facts["scaler"])
        redraw(self.model, self.generators, under("draws", tensors))

    def rewind(self) -> None:
        """Give the model the weights of the file, from which the run can go on; if there is none, nothing."""
        rewind(self.path, FORMAT, self.model)

    def _check(self, facts: Facts, tensors: Tensors) -> None:
        if changed := difference(facts["asked"], json.loads(json.dumps(self.asked))):
            raise CheckpointError(
                f"'{self.path}' is of another training: {changed}.",
                "Give the same model and options as then, or name another file to start anew.",
            )
        starts = facts["start"], sketch(under("model", tensors)), sketch(under("best", tensors))
        if not any(alike(self.start, start) for start in starts) or not alike(self.teacher, facts["teacher"]):
            raise CheckpointError(
                f"'{self.path}' is of a training with other weights at its start, or in its teacher.",
                "Start with the same weights as then, or name another file to start anew.",
            )


def difference(old: Any, new: Any, name: str = "") -> str:
    """The first place where two values of JSON differ, in words; "" if none.

    >>> difference({"lr": 0.1, "model": {"bias": "[2]"}}, {"lr": 0.1, "model": {"bias": "[3]"}})
    'model.bias was [2], and is [3]'
    """
    if old == new:
        return ""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f"{name} was {old}, and is {new}"
    key = next(key for key in (*old, *new) if old.get(key) != new.get(key))
    return difference(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))


def sketch(tensors: Mapping[str, Any]) -> dict[str, float]:
    """One number a tensor, ⟨w, cos(0), cos(1), …⟩ / ‖w‖, which tells weights apart but not roundings.

    Entries of ±∞ count as ±1, and NaN as 0.

    >>> sketch({"w": torch.tensor([2.0, 0.0]), "steps": torch.tensor(3)})
    {'w': 1.0}
    """
    return {n: _projected(t.detach()) for n, t in tensors.items() if isinstance(t, Tensor) and _real(t)}


def _real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0


def _projected(tensor: Tensor) -> float:
    values = tensor.flatten().cpu().double().nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0)
    direction = torch.arange(len(values), dtype=torch.float64).cos()
    return float(values @ direction / values.norm().clamp_min(1e-30))


def alike(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Whether two sketches are of the same tensors, up to rounding.

    >>> alike({"w": 0.5}, {"w": 0.50001}), alike({"w": 0.5}, {"w": -0.5}), alike({"w": 0.5}, {})
    (True, False, False)
    """
    return first.keys() == second.keys() and all(
        abs(first[name] - second[name]) <= CLOSE * (1 + abs(first[name])) for name in first
    )


def described(model: nn.Module) -> dict[str, str]:
    """Name -> type, shape and whether it trains, for every tensor of the model's state."""
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        name: f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}{' trained' * (name in trains)}"
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }


def flattened(optimizer: torch.optim.Optimizer) -> tuple[Facts, Tensors]:
    """The optimizer's state as numbers and tensors, both under "parameter.name".

    >>> weight = nn.Parameter(torch.ones(2))
    >>> optimizer = torch.optim.Adam([weight])
    >>> weight.sum().backward(); optimizer.step()
    >>> numbers, tensors = flattened(optimizer)
    >>> numbers, sorted(tensors)
    ({}, ['0.exp_avg', '0.exp_avg_sq', '0.step'])
    """
    state = optimizer.state_dict()["state"]
    items = {f"{index}.{name}": value for index, own in state.items() for name, value in own.items()}
    tensors = {key: value for key, value in items.items() if isinstance(value, Tensor)}
    numbers = {key: value for key, value in items.items() if key not in tensors}
    if strange := [key for key, value in numbers.items() if not isinstance(value, int | float | None)]:
        raise CheckpointError(
            f"{type(optimizer).__name__} keeps a {type(numbers[strange[0]]).__name__} as '{strange[0]}', "
            "which cannot be written down.",
            "Use an optimizer whose state is tensors and numbers (Adam, AdamW, SGD, …), or leave out resume.",
        )
    return numbers, tensors


def unflatten(optimizer: torch.optim.Optimizer, numbers: Mapping[str, Any], tensors: Tensors) -> None:
    """Give the optimizer what `flattened` took from it, each moment in the memory order of its parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**numbers, **tensors}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = _like(value, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _like(value: Any, parameter: Tensor) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _placed(tensors: Tensors, examples: Mapping[str, Tensor]) -> Tensors:
    return {name: value.to(examples[name].device) for name, value in tensors.items()}


def draws(model: nn.Module, generators: Sequence[torch.Generator]) -> Tensors:
    """The states of the generators of random numbers: torch's own, the model's GPUs', the loader's."""
    states = {"torch": torch.get_rng_state()}
    states |= {f"cuda{gpu}": torch.cuda.get_rng_state(gpu) for gpu in gpus(model)}
    return states | {f"loader{k}": generator.get_state() for k, generator in enumerate(generators)}


def redraw(model: nn.Module, generators: Sequence[torch.Generator], states: Tensors) -> None:
    """Set the generators to what `draws` gave."""
    torch.set_rng_state(states["torch"])
    for gpu in gpus(model):
        torch.cuda.set_rng_state(states[f"cuda{gpu}"], gpu)
    for k, generator in enumerate(generators):
        generator.set_state(states[f"loader{k}"])


def gpus(model: nn.Module) -> list[int]:
    """The CUDA devices that hold parameters of the model."""
    return sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
