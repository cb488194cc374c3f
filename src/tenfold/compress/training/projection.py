"""The nearest weight that a format with given ranks can hold."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tenfold.compress.plan import LayerPlan, Plan
from tenfold.compress.presets import METHODS
from tenfold.core.errors import DivergedError, ModelError, SelectionError
from tenfold.core.layout import Layout

Weights = dict[str, Tensor]
Layers = Mapping[str, LayerPlan]


def layers_of(plan: Plan) -> dict[str, LayerPlan]:
    """Name of the weight -> what is planned for it."""
    return {f"{module}.{p}": layer for module, ps in plan.layers.items() for p, layer in ps.items()}


def weights_of(model: nn.Module, layers: Layers) -> Weights:
    """The weights that are planned for, as they are: the parameters' own data.

    Raises:
        SelectionError: if the model has no such parameter.
        ModelError: if a weight is frozen.
        DivergedError: if a weight is not finite.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    found: Weights = {}
    for name in layers:
        if name not in own:
            raise SelectionError(
                f"the plan names '{name}', which the model has not.",
                "Train the dense model that the plan was made for.",
            )
        if not own[name].requires_grad:
            raise ModelError(
                f"'{name}' is frozen, so that it cannot be drawn to a format.",
                "Set its requires_grad, or leave it out of the plan.",
            )
        found[name] = own[name].detach()
        if not torch.isfinite(found[name]).all():
            raise DivergedError(
                f"'{name}' holds entries that are NaN or infinite.",
                "Use a smaller learning rate, or a weaker pull at the start (rho, mu).",
            )
    return found


def nearest(target: Tensor, layer: LayerPlan, name: str = "the weight", seed: int = 0) -> Tensor:
    """The weight nearest to `target`, in the Euclidean norm, that the planned format and ranks can hold.

    Exact for low rank; for other formats as near as the method comes. The metric of the plan is left aside:
    what pulls weights while they train is the Euclidean distance.

    >>> import torch
    >>> nearest(torch.diag(torch.tensor([3.0, 1.0])), LayerPlan("lowrank", "o i -> o i", {"R": 1})).round()
    tensor([[3., 0.],
            [0., 0.]])
    """
    layout = Layout.parse(layer.layout).bind(target.shape, name)
    method = layer.method or METHODS[layer.format]
    value = method.fit(layout.to_modes(target), layer.ranks, generator=seed).value
    return layout.to_weight(value.dense())


def projected(
    targets: Mapping[str, Tensor],
    layers: Layers,
    last: Mapping[str, Tensor],
    known: Layers,
    seed: int,
) -> Weights:
    """The nearest weights of all layers.

    Where the plan of a layer is still the `known` one, its `last` weight stays if it is nearer than what the
    method finds, which iterative methods do not promise: so the distance never rises by the fit alone.
    """
    found: Weights = {}
    for name, layer in layers.items():
        target = targets[name]
        found[name] = nearest(target, layer, name, seed)
        if known.get(name) == layer and distance(target, last[name]) < distance(target, found[name]):
            found[name] = last[name]
    return found


def distance(first: Tensor, second: Tensor) -> float:
    """‖first - second‖."""
    apart = first - second
    return float(torch.linalg.vector_norm(apart.to(torch.promote_types(apart.dtype, torch.float64))))


@contextmanager
def holding(model: nn.Module, targets: Mapping[str, Tensor]) -> Iterator[None]:
    """Until left, the model has these weights in the place of its own."""
    own = {name: model.get_parameter(name).detach().clone() for name in targets}
    _fill(model, targets)
    try:
        yield
    finally:
        _fill(model, own)


@torch.no_grad()
def _fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        model.get_parameter(name).copy_(weight)
