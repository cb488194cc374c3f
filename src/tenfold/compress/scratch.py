"""Training from scratch in factorized form: a fresh model gets fresh factors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tenfold.compress.apply import LayerFit, apply_
from tenfold.compress.opening import open_
from tenfold.compress.plan import LayerPlan, Plan
from tenfold.core.arrays import check_finite
from tenfold.core.errors import ModelError, SelectionError
from tenfold.core.layout import Layout
from tenfold.formats import Format, formats
from tenfold.nn import FactorizedTensor
from tenfold.nn.moments import scaled_to


def apply_fresh_(model: nn.Module, plan: Plan, *, seed: int = 0) -> tuple[LayerFit, ...]:
    """Replace the layers that the plan names, in place, by factorized ones to be trained from the start.

    Nothing is decomposed: random weights have no structure that factors could keep, and truncating them
    makes them smaller. The factors are drawn anew, and scaled so that the weight which they make has exactly
    the standard deviation of the weight that was there. What the model's own initialisation says about scales
    (He, Glorot, a smaller last layer) so remains true, whatever the format and its ranks. A weight that was
    all zeros, as at the end of some residual branches, still is: its last factor is zero, and the others are
    those of torch's usual deviation, 1 / sqrt(3 fan_in), for if all were zero none would ever learn.

    Ranks by a rule that looks at weights mean little here; take `Uniform` or `Fixed`. Build optimizers after
    this call: the dense parameters are gone.

    Raises:
        SelectionError: if the model has no such module or parameter.
        UnsupportedError: if a layer has no factorized form.
        ModelError: if the model is on the meta device, where weights have no values.
        WeightError: if a weight holds NaN or infinite entries.

    >>> from tenfold.compress.plan import plan
    >>> from tenfold.ranks import Budget
    >>> model = nn.Sequential(nn.Conv2d(64, 64, 3))
    >>> before = model[0].weight.std()
    >>> _ = apply_fresh_(model, plan(model, Budget(params=0.2), example=torch.zeros(1, 64, 8, 8)))
    >>> torch.allclose(model[0].weight.dense().std(), before)
    True
    """
    open_(model, plan.layers)
    deviations = {module: _deviation(model, module, ps) for module, ps in plan.layers.items()}
    fits = apply_(model, plan, fit=False)
    for k, (module, deviation) in enumerate(deviations.items()):
        weight = model.get_submodule(module).weight
        assert isinstance(weight, FactorizedTensor)
        weight.set_(fresh(plan.layers[module]["weight"], weight, deviation, seed + k))
    return fits


def _deviation(model: nn.Module, module: str, layers: Mapping[str, LayerPlan]) -> float:
    """The standard deviation of a weight that is to be replaced."""
    own = dict(model.named_parameters(remove_duplicate=False))
    weight = own.get(f"{module}.weight")
    if weight is None or "weight" not in layers:
        raise SelectionError(
            f"the plan names '{module}.{next(iter(layers))}', which the model has not.", "Check the model."
        )
    if weight.is_meta:
        raise ModelError(
            f"'{module}.weight' is on the meta device, where it has no values to be like.",
            "Build the model on a real device.",
        )
    check_finite(weight.detach(), f"{module}.weight")
    return float(weight.detach().double().std(correction=0))


def fresh(layer: LayerPlan, weight: FactorizedTensor, deviation: float, seed: int) -> Format:
    """Random factors in the format and ranks of the plan, whose weight has exactly this deviation."""
    shape = tuple(weight.shape)
    layout = Layout.parse(layer.layout).bind(shape)
    like = torch.empty(0, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
    drawn = formats[layer.format].random(
        layout.mode_shape, layer.ranks, like=like, std=deviation or usual(shape), generator=seed
    )
    if deviation == 0:
        return _without_last(drawn)
    return scaled_to(drawn, deviation)


def usual(shape: tuple[int, ...]) -> float:
    """The deviation that torch gives the weights of linear layers and convolutions, 1 / sqrt(3 fan_in).

    >>> usual((8, 3, 2, 2)) == nn.Conv2d(3, 8, 2).weight[0].numel() ** -0.5 / 3**0.5
    True
    """
    return 1 / math.sqrt(3 * math.prod(shape[1:]))


def _without_last(value: Format) -> Format:
    """The same factors, but the last one zero."""
    last = value.factors[-1]

    def kept(factor: Tensor) -> Tensor:
        return torch.zeros_like(factor) if factor is last else factor

    return value.map(kept)
