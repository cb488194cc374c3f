"""The weights of a model that may be compressed, found by one forward pass."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.opening import opened
from tenfold.core.errors import ModelError
from tenfold.measure.running import evaluating, run
from tenfold.nn import REPLACEMENTS


@dataclass(frozen=True)
class Site:
    """A weight that may be compressed.

    `inputs` are the shapes of what layers of this kind that have it were given in the forward pass, call by
    call; `shared` names the other places where the same parameter stands.
    """

    module: str
    parameter: str
    kind: str
    shape: tuple[int, ...]
    inputs: tuple[tuple[int, ...], ...] = ()
    shared: tuple[str, ...] = ()

    @property
    def example(self) -> tuple[int, ...] | None:
        """The shape of the first input; None if there was none."""
        return self.inputs[0] if self.inputs else None

    @property
    def name(self) -> str:
        """Name of the parameter, as in `model.named_parameters()`."""
        return f"{self.module}.{self.parameter}" if self.module else self.parameter

    @property
    def numel(self) -> int:
        """Elements of the weight."""
        return torch.Size(self.shape).numel()


def find_sites(model: nn.Module, example: Any) -> list[Site]:
    """The sites of a model in the order of its modules; a parameter that stands in several places is one.

    `example` is a batch as the model takes it: a tensor, a tuple of arguments or a mapping of them. The
    model is run once, in evaluation mode and without gradients, and left as it was. Recurrent and attention
    modules are seen as the linear layers that they are made of.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    >>> [(s.name, s.shape, s.example) for s in find_sites(net, torch.zeros(2, 3, 8, 8))]
    [('0.weight', (8, 3, 3, 3), (2, 3, 8, 8)), ('3.weight', (10, 288), (2, 288))]
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"a model was expected, but {type(model).__name__} came.", "Give a torch.nn.Module.")
    model = opened(model)
    seen = _input_shapes(model, example)
    places = _places(model)
    kinds = {name: type(module) for name, module in model.named_modules()}
    found: dict[int, Site] = {}
    for name, module in model.named_modules():
        if type(module) in REPLACEMENTS and _is_plain(module):
            weight = module.get_parameter("weight")
            own = f"{name}.weight" if name else "weight"
            others = tuple(p for p in places[id(weight)] if p != own)
            alike = [p.rpartition(".")[0] for p in others if kinds.get(p.rpartition(".")[0]) is type(module)]
            inputs = tuple(shape for layer in (name, *alike) for shape in seen[layer])
            site = Site(name, "weight", type(module).__name__, tuple(weight.shape), inputs, others)
            found.setdefault(id(weight), site)
    return list(found.values())


def _is_plain(module: nn.Module) -> bool:
    """Whether the weight is an ordinary floating-point parameter of the module itself."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.is_floating_point() and weight.numel() > 0


def _places(model: nn.Module) -> Mapping[int, list[str]]:
    places: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places[id(parameter)].append(name)
    return places


def _input_shapes(model: nn.Module, example: Any) -> Mapping[str, list[tuple[int, ...]]]:
    """Shapes of the first inputs, call by call, of every layer that has a factorized form."""
    shapes: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    handles = [
        module.register_forward_pre_hook(_recorder(shapes, name), with_kwargs=True)
        for name, module in _layers(model)
    ]
    try:
        with evaluating(model):
            run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, m) for name, m in model.named_modules() if type(m) in REPLACEMENTS)


def _recorder(shapes: dict[str, list[tuple[int, ...]]], name: str) -> Any:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs.get("input", kwargs.get("input1"))
        if isinstance(given, Tensor):
            shapes[name].append(tuple(given.shape))

    return record
