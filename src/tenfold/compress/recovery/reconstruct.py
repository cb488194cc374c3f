"""Repair without labels: every block of a compressed model learns to do what the dense one does."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tenfold.compress.batches import Forward, outputs_of, placed
from tenfold.compress.recovery.batches import unlabelled
from tenfold.compress.recovery.features import (
    TINY,
    at_least_single,
    first_tensor,
    module_named,
    relative_square,
)
from tenfold.compress.recovery.options import whole
from tenfold.compress.recovery.schedule import SCHEDULES, Schedule, set_rate
from tenfold.core.errors import DivergedError, ModelError, OptionError, SelectionError
from tenfold.measure.running import device_of, evaluating

Inputs = Literal["dense", "small"]


@dataclass(frozen=True)
class Rebuilt:
    """How far a block's outputs are from the dense ones, ‖small - dense‖ / ‖dense‖ over all batches."""

    name: str
    before: float
    after: float


def reconstruct_(
    small: nn.Module,
    dense: nn.Module,
    batches: Iterable[Any],
    blocks: Mapping[str, str] | Iterable[str],
    *,
    epochs: int = 10,
    lr: float = 1e-3,
    inputs: Inputs = "dense",
    stored: bool = False,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    schedule: Schedule = "cosine",
    forward: Forward | None = None,
    progress: Callable[[int, int, Rebuilt], object] | None = None,
) -> tuple[Rebuilt, ...]:
    """Train the blocks of `small` in place, one after the other, to give the outputs of those of `dense`.

    Needs no labels and little data, for a block has few parameters and its outputs many numbers. Both models
    run as at inference, so batch norm keeps its statistics and dropout does nothing. A block whose error did
    not fall gets its weights of before. Models run again in every epoch, as far as the block at hand, so a
    block takes `epochs` + 2 passes over the batches; or once a block, if its inputs and outputs are `stored`.

    Args:
        batches: inputs, or (inputs, labels), of which the labels are not looked at; read many times. Inputs
            are a tensor, a tuple of arguments or a mapping of named ones; a pair of them is ((a, b), None).
        blocks: names of modules, the same in both, or {name in small: name in dense}, in the order of the
            forward pass. Of a block that runs several times, the first time counts.
        inputs: what a block learns on: the inputs that it has in the "dense" model, or those in the "small"
            one, whose earlier blocks it then makes up for.
        stored: hold what a block is given and what it should give in memory, for all batches, as it learns.
        optimizer: called as `optimizer(parameters, lr=lr)`.
        schedule: the learning rate, "constant" or falling to zero as half a "cosine", changed once an epoch.
        forward: called as `forward(model, batch)` with a batch on the model's device; by default the model is
            called with the inputs.
        progress: called with the blocks done, the number of blocks and the latest.

    Raises:
        OptionError: for an option outside its range.
        SelectionError: if a block is not the name of a module, or there is none, or it does not run.
        ModelError: if a block has no parameter to train.
        ShapeError: if the outputs of two blocks differ in shape.
        DataError: if there are no batches.
        DivergedError: if the error becomes infinite; the weights of before stay.

    Source: Li et al. 2021 (BRECQ, arXiv 2102.05426), section 3.2; He, Zhang & Sun 2017 (arXiv 1707.06168).

    >>> _ = torch.manual_seed(0)
    >>> small, dense = (nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2))
    >>> (block,) = reconstruct_(small, dense, [torch.randn(64, 4)], ["0"], epochs=200, lr=0.05)
    >>> block.before > 0.5, block.after < 0.01
    (True, True)
    """
    _check(epochs, lr, inputs, schedule)
    pairs = _pairs(small, dense, blocks)
    done: list[Rebuilt] = []
    with evaluating(small), evaluating(dense):
        for name, twin in pairs:
            data = _Data(small, dense, name, twin, batches, inputs, forward)
            done.append(_rebuilt(_Stored.of(data) if stored else data, epochs, lr, optimizer, schedule))
            if progress is not None:
                progress(len(done), len(pairs), done[-1])
    return tuple(done)


@dataclass(frozen=True)
class _Data:
    """Where a block's inputs and the wanted outputs come from."""

    small: nn.Module
    dense: nn.Module
    name: str
    twin: str
    batches: Iterable[Any]
    inputs: Inputs
    forward: Forward | None

    @property
    def block(self) -> nn.Module:
        return module_named(self.small, self.name)

    def pairs(self) -> Iterator[tuple["_Arguments", Tensor]]:
        """The inputs of the small block, and the outputs of the dense one."""
        seen = 0
        for batch in self.batches:
            given, wanted = _call(self.dense, self.twin, batch, self.forward)
            if self.inputs == "small":
                given, _ = _call(self.small, self.name, batch, self.forward)
            yield given, wanted
            seen += 1
        unlabelled(seen, "to rebuild blocks on")

    def output(self, given: "_Arguments") -> Tensor:
        """What the small block gives for these inputs."""
        return first_tensor(self.block(*given.places, **given.names), self.name)


@dataclass(frozen=True)
class _Stored(_Data):
    """The same, worked out once."""

    kept: tuple[tuple["_Arguments", Tensor], ...] = ()

    @staticmethod
    def of(data: _Data) -> "_Stored":
        return _Stored(**vars(data), kept=tuple(data.pairs()))

    def pairs(self) -> Iterator[tuple["_Arguments", Tensor]]:
        """Copies of the inputs, which the block may change in place, and the wanted outputs."""
        return ((given.copied(), wanted) for given, wanted in self.kept)


@dataclass(frozen=True)
class _Arguments:
    """What a module is called with, by place and by name."""

    places: tuple[Any, ...]
    names: dict[str, Any]

    def copied(self) -> "_Arguments":
        """With tensors and caches of their own, for the module may change its inputs in place."""
        return _Arguments(tuple(map(_copy, self.places)), {n: _copy(v) for n, v in self.names.items()})


class _Reached(BaseException):
    """The block has run; what comes after it need not. Not an error, so no `except Exception` stops it."""


def _call(model: nn.Module, name: str, batch: Any, forward: Forward | None) -> tuple[_Arguments, Tensor]:
    """Run the model as far as the named module: the arguments and the output of that one."""
    given: list[_Arguments] = []
    wanted: list[Tensor] = []

    def enter(_: nn.Module, places: tuple[Any, ...], names: dict[str, Any]) -> None:
        given.append(_Arguments(places, names).copied())

    def leave(_: nn.Module, inputs: object, output: object) -> None:
        wanted.append(first_tensor(output, name))
        raise _Reached

    module = module_named(model, name)
    with torch.no_grad(), ExitStack() as hooks:
        hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        hooks.callback(module.register_forward_hook(leave).remove)
        try:
            outputs_of(model, placed(batch, device_of(model)), forward)
        except _Reached:
            return given[0], wanted[0]
    raise SelectionError(
        f"Block '{name}' does not run when {type(model).__name__} is called.",
        "Name modules that take part in the forward pass.",
    )


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else deepcopy(value)


def _rebuilt(
    data: _Data,
    epochs: int,
    lr: float,
    optimizer: Callable[..., torch.optim.Optimizer],
    schedule: Schedule,
) -> Rebuilt:
    """Train one block, and keep what came of it if it is nearer."""
    before, weights = _error(data), deepcopy(data.block.state_dict())
    stepper = optimizer(_trainable(data.block, data.name), lr=lr)
    for number in range(epochs):
        set_rate(stepper, schedule, number / epochs)
        _pass(data, stepper)
    after = _error(data)
    if after < before:
        return Rebuilt(data.name, before, after)
    data.block.load_state_dict(weights)
    if not isfinite(after):
        raise _diverged(data.name, after)
    return Rebuilt(data.name, before, before)


def _pass(data: _Data, stepper: torch.optim.Optimizer) -> None:
    for given, wanted in data.pairs():
        with torch.enable_grad():
            loss = relative_square(data.output(given), wanted, data.name)
            stepper.zero_grad()
            loss.backward()
        stepper.step()
    stepper.zero_grad()


def _error(data: _Data) -> float:
    """‖small - dense‖ / ‖dense‖ over all batches; ‖small‖ if all that is wanted is 0."""
    apart, whole = 0.0, 0.0
    for given, wanted in data.pairs():
        size = at_least_single(wanted).square().sum().item()
        error = relative_square(data.output(given), wanted, data.name).item()
        apart += error * (size if size > TINY else 1.0)
        whole += size
    return (apart / (whole if whole > TINY else 1.0)) ** 0.5


def _pairs(
    small: nn.Module, dense: nn.Module, blocks: Mapping[str, str] | Iterable[str]
) -> tuple[tuple[str, str], ...]:
    pairs = tuple(blocks.items()) if isinstance(blocks, Mapping) else tuple((name, name) for name in blocks)
    for name, twin in pairs:
        _trainable(module_named(small, name), name)
        module_named(dense, twin)
    if not pairs:
        raise SelectionError("There are no blocks to rebuild.", "Name modules: ['layer1', 'layer2'].")
    return pairs


def _trainable(block: nn.Module, name: str) -> list[nn.Parameter]:
    parameters = [parameter for parameter in block.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError(
            f"Block '{name}' has no parameter to train.",
            "Name a block with weights, and set their requires_grad.",
        )
    return parameters


def _diverged(name: str, error: float) -> DivergedError:
    return DivergedError(
        f"The error of block '{name}' became {error}.",
        "Use a smaller learning rate (lr), and check that the inputs are finite.",
    )


def _check(epochs: int, lr: float, inputs: str, schedule: str) -> None:
    ranges = {
        f"a whole number of epochs >= 1, got {epochs}": whole(epochs) and epochs >= 1,
        f"a finite lr > 0, got {lr}": 0 < lr < inf,
        f"inputs of dense or small, got '{inputs}'": inputs in ("dense", "small"),
        f"a schedule of {' or '.join(SCHEDULES)}, got '{schedule}'": schedule in SCHEDULES,
    }
    for wanted, met in ranges.items():
        if not met:
            raise OptionError(f"Rebuilding needs {wanted}.", "The docstring says what each option does.")
