"""Carry out a plan: fit the factors, and put factorized layers in the place of dense ones."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.fit import fitted
from tenfold.compress.opening import open_
from tenfold.compress.plan import LayerPlan, Plan
from tenfold.compress.presets import METHODS
from tenfold.compress.shift import shift_of
from tenfold.core.arrays import check_finite
from tenfold.core.errors import DataError, SelectionError, UnsupportedError
from tenfold.core.layout import Layout
from tenfold.core.pieces import frobenius
from tenfold.decompose import Fit
from tenfold.decompose.base import relative
from tenfold.formats import formats
from tenfold.nn import FactorizedLayer, PivotedTensor, replacement

Progress = Callable[[int, int, str], object]
"""Called with what is done, what there is to do, and the name of the site at hand."""


@dataclass(frozen=True)
class LayerFit:
    """How one site was fitted: elements before and after, relative error of the weight, steps taken.

    The `error` is ‖W - Ŵ‖ / ‖W‖ of the dense weight W and of the one Ŵ that the factors make, in whichever
    metric they were fitted: as the function left them that gave the fit, `compress` behind its correction.
    """

    name: str
    shape: tuple[int, ...]
    plan: LayerPlan
    dense: int
    stored: int
    error: float
    steps: int
    converged: bool


def apply_(
    model: nn.Module,
    plan: Plan,
    *,
    fit: bool = True,
    seed: int = 0,
    statistics: Statistics | None = None,
    progress: Progress | None = None,
) -> tuple[LayerFit, ...]:
    """Replace the layers that the plan names, in place; all factors are fitted before any layer is replaced.

    With `fit=False` the factors are left uninitialised, for a state dict to fill; works on the meta device.
    Layers that name a metric need the `statistics` that it takes; their biases take up what the mean output
    loses. Build optimizers after this call: the dense parameters are gone.

    Raises:
        SelectionError: if the model has no such module or parameter, or if two layers that are named hold the
            same weight.
        UnsupportedError: if a layer or a parameter has no factorized form.
        WeightError: if a weight holds NaN or infinite entries.
    """
    open_(model, plan.layers)
    entries = [(m, p, layer) for m, ps in plan.layers.items() for p, layer in ps.items()]
    for module, parameter, layer in entries:
        _check(model, module, parameter, fit)
        name = f"{module}.{parameter}"
        if fit and layer.metric is not None and (statistics is None or name not in statistics):
            raise DataError(
                f"'{name}' is planned in a metric, but no statistics of it were given.",
                "Collect them: collect(model, batches, sites), and pass them on.",
            )
    _check_named_once(model, plan.layers)
    fits: list[LayerFit] = []
    made: dict[str, FactorizedLayer] = {}
    for k, (module, parameter, layer) in enumerate(entries):
        if progress:
            progress(k, len(entries), f"{module}.{parameter}")
        name = f"{module}.{parameter}"
        seen = None if statistics is None or layer.metric is None or not fit else statistics[name]
        made[module], report = _made(model.get_submodule(module), name, layer, fit, seed, seen)
        fits.append(report)
    if progress:
        progress(len(entries), len(entries), "")
    for module, replaced in made.items():
        _replace_everywhere(model, module, replaced)
    _without_nested_tensors(model)
    return tuple(fits)


def _check(model: nn.Module, module: str, parameter: str, fit: bool) -> None:
    modules = dict(model.named_modules())
    if module not in modules or parameter not in modules[module]._parameters:
        raise SelectionError(
            f"the plan names '{module}.{parameter}', which the model has not.", "Check the model."
        )
    if module == "":
        raise UnsupportedError("the model is a single layer.", "Wrap it: nn.Sequential(layer).")
    replacement(modules[module])
    if parameter != "weight":
        raise UnsupportedError(
            f"the plan names '{module}.{parameter}', but weights alone have factors.",
            "Take that entry out of the plan.",
        )
    if fit:
        check_finite(modules[module].get_parameter(parameter).detach(), f"{module}.{parameter}")


def _check_named_once(model: nn.Module, modules: Iterable[str]) -> None:
    names: dict[int, str] = {}
    for module in modules:
        first = names.setdefault(id(model.get_submodule(module).get_parameter("weight")), module)
        if first != module:
            raise SelectionError(
                f"the plan names '{first}' and '{module}', which hold the same weight.",
                "Take one of them out of the plan: both will have its factors.",
            )


def _made(
    dense: nn.Module, name: str, layer: LayerPlan, fit: bool, seed: int, seen: SiteStatistics | None
) -> tuple[FactorizedLayer, LayerFit]:
    weight = dense.get_parameter("weight").detach()
    layout = Layout.parse(layer.layout).bind(weight.shape, name)
    found = _fitted(weight, layout, layer, seed, seen) if fit else _empty(weight, layout, layer)
    made = replacement(dense).from_dense(dense, found.value, layout, layer.example)
    if layer.pivoted:
        made.weight = PivotedTensor.of(made.weight)
    made.weight.requires_grad_(dense.get_parameter("weight").requires_grad)
    error = found.error
    if seen is not None:
        change = weight - made.weight.dense().detach()
        error = relative(frobenius(change), frobenius(weight))
        _correct_bias(made, change, layer, seen)
    report = LayerFit(
        name,
        tuple(weight.shape),
        layer,
        weight.numel(),
        made.weight.numel(),
        error,
        found.steps,
        found.converged,
    )
    return made, report


def _empty(weight: Tensor, layout: Layout, layer: LayerPlan) -> Fit[Any]:
    kind = formats[layer.format]
    network = kind.skeleton(layout.mode_shape, layer.ranks)
    empty = [torch.empty(s, dtype=weight.dtype, device=weight.device) for s in network.shapes]
    return Fit(kind.from_network(network, empty), 0.0, 0)


def _fitted(
    weight: Tensor, layout: Layout, layer: LayerPlan, seed: int, seen: SiteStatistics | None
) -> Fit[Any]:
    method = layer.method or METHODS[layer.format]
    return fitted(method, weight, layout, layer.ranks, layer.metric, seen, seed)


def _correct_bias(made: FactorizedLayer, change: Tensor, layer: LayerPlan, seen: SiteStatistics) -> None:
    """b + (W - Ŵ) E[x]: the mean output is what it was."""
    mean = seen.patch_mean if seen.patch_mean is not None else seen.input_mean
    if made.bias is None or mean is None or layer.metric is None or not layer.metric.centred:
        return
    with torch.no_grad():
        made.bias.add_(shift_of(change, mean if mean.ndim == 1 else mean.mean(0)))


def _replace_everywhere(model: nn.Module, name: str, layer: FactorizedLayer) -> None:
    """Put the layer where the dense one stood, under all its names; layers tied to it share its factors."""
    dense = model.get_submodule(name)
    shared = dense.get_parameter("weight")
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is dense:
            _set(model, path, layer)
        elif module._parameters.get("weight") is shared:
            twin = type(layer).from_dense(module, layer.weight.value, layer.layout, layer.planned())
            twin.weight = layer.weight
            _set(model, path, twin)


def _without_nested_tensors(model: nn.Module) -> None:
    """Encoders decide by their first layer alone whether padded input becomes a nested tensor, which no layer
    with factors takes."""
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder) and any(True for _ in factorized(encoder)):
            encoder.enable_nested_tensor = encoder.use_nested_tensor = False


def _set(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def factorized(model: nn.Module) -> Iterator[tuple[str, FactorizedLayer]]:
    """The factorized layers of a model by name."""
    return ((name, m) for name, m in model.named_modules() if isinstance(m, FactorizedLayer))
