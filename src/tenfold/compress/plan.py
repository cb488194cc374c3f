"""What is done at each site, as data: made by a rank rule, printed, edited, saved as JSON, applied."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tenfold.compress.calibration.families import refusal
from tenfold.compress.calibration.patches import order_of
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.latency import LatencyTable
from tenfold.compress.metric import Metric, metrics
from tenfold.compress.offers import Offer, offered
from tenfold.compress.opening import opened
from tenfold.compress.select import Choice, Selection, Wanted, choose
from tenfold.compress.shift import followed_by_norm
from tenfold.compress.sites import find_sites
from tenfold.core import serde
from tenfold.core.atomic import write_text
from tenfold.core.errors import CheckpointError, TenfoldError
from tenfold.core.layout import Layout
from tenfold.core.network import Axis
from tenfold.decompose import Method, methods
from tenfold.formats import formats
from tenfold.nn import FactorizedLayer
from tenfold.nn.tensor.pivoted import PivotedTensor
from tenfold.nn.tensor.pivoted import elements as pivoted_elements
from tenfold.nn.tensor.shared_factors import SharingTensor
from tenfold.ranks import Budget, RankRule, Uniform, allot, rules, winners
from tenfold.ranks.budget import STORED

VERSION = 1


@dataclass(frozen=True)
class LayerPlan:
    """One site: format, layout, ranks, the method that fits them, the input to plan its steps for, and the
    metric in which the weight is approximated (None: the Euclidean one). A matrix of low rank may be stored
    `pivoted`, as a `PivotedTensor`."""

    format: str
    layout: str
    ranks: Mapping[Axis, int]
    method: Method[Any] | None = None
    example: tuple[int, ...] | None = None
    metric: Metric | None = None
    pivoted: bool = False

    def numel(self, shape: tuple[int, ...]) -> int:
        """Elements that the factors of a weight of this shape store."""
        modes = Layout.parse(self.layout).bind(shape).mode_shape
        network = formats[self.format].skeleton(modes, self.ranks)
        return pivoted_elements(network) if self.pivoted else network.numel

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        data: dict[str, Any] = {"format": self.format, "layout": self.layout, "ranks": dict(self.ranks)}
        if self.method is not None:
            data["method"] = serde.to_dict(methods, self.method)
        if self.example is not None:
            data["example"] = list(self.example)
        if self.metric is not None:
            data["metric"] = serde.to_dict(metrics, self.metric)
        if self.pivoted:
            data["pivoted"] = True
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "LayerPlan":
        """Inverse of `to_dict`; names that are not registered are refused."""
        formats[data["format"]]
        method = serde.from_dict(methods, data["method"]) if "method" in data else None
        example = tuple(data["example"]) if "example" in data else None
        metric = serde.from_dict(metrics, data["metric"]) if "metric" in data else None
        Layout.parse(data["layout"])
        pivoted = data.get("pivoted", False)
        if not isinstance(pivoted, bool) or (pivoted and data["format"] != "lowrank"):
            raise CheckpointError(
                f"the plan has pivoted={pivoted!r} for the format '{data['format']}'.",
                "Give true or false, and true for lowrank alone.",
            )
        return LayerPlan(
            data["format"], data["layout"], dict(data["ranks"]), method, example, metric, pivoted
        )


@dataclass(frozen=True)
class Provenance:
    """Where a plan comes from: versions, and how it was asked for."""

    tenfold: str = field(default_factory=lambda: version("tenfold"))
    torch: str = torch.__version__
    python: str = field(default_factory=platform.python_version)
    request: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Module -> parameter -> what to do; `dense` says of the other sites why they stay as they are."""

    layers: Mapping[str, Mapping[str, LayerPlan]]
    dense: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION
    provenance: Provenance = field(default_factory=Provenance)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "version": self.version,
            "provenance": vars(self.provenance) | {"request": dict(self.provenance.request)},
            "layers": {m: {p: e.to_dict() for p, e in ps.items()} for m, ps in self.layers.items()},
            "dense": dict(self.dense),
        }

    def to_json(self) -> str:
        """The plan as JSON, which may be edited by hand."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "Plan":
        """Inverse of `to_json`; raises CheckpointError if the text is no plan of a known version."""
        try:
            data = json.loads(text)
            found = data["version"]
            layers = {
                m: {p: LayerPlan.from_dict(e) for p, e in ps.items()} for m, ps in data["layers"].items()
            }
            provenance = Provenance(**data.get("provenance", {}))
        except TenfoldError:
            raise
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"this is no plan: {error!r}.", "Make one with `tenfold plan`.") from error
        if found != VERSION:
            raise CheckpointError(
                f"the plan has version {found}, this tenfold reads {VERSION}.", "Update tenfold."
            )
        return Plan(layers, data.get("dense", {}), found, provenance)

    def save(self, path: str | Path) -> None:
        """Write the JSON, all of it or nothing."""
        write_text(Path(path), self.to_json())

    @staticmethod
    def load(path: str | Path) -> "Plan":
        """Read the JSON."""
        try:
            return Plan.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"the plan '{path}' cannot be read: {error}.", "Check the path.") from error

    @staticmethod
    def of(model: nn.Module) -> "Plan":
        """The plan that leads to the factorized layers of a model, as they are now; methods are not known.

        Joint layers are left out: a plan has one tensor for each weight.
        """
        found: dict[int, tuple[str, FactorizedLayer]] = {}
        for name, module in model.named_modules():
            if isinstance(module, FactorizedLayer) and not isinstance(module.weight, SharingTensor):
                found.setdefault(id(module.weight), (name, module))
        return Plan({name: {"weight": _described(layer)} for name, layer in found.values()})


def _described(layer: FactorizedLayer) -> LayerPlan:
    weight = layer.weight
    return LayerPlan(
        formats.name_of(weight.format),
        str(layer.layout),
        weight.ranks,
        example=layer.planned(),
        pivoted=isinstance(weight, PivotedTensor),
    )


def plan(
    model: nn.Module,
    budget: Budget | None,
    *,
    example: Any,
    preset: Wanted = "tucker2",
    select: Selection | None = None,
    rule: RankRule | None = None,
    method: Method[Any] | None = None,
    metric: Metric | None = None,
    statistics: Statistics | None = None,
    latencies: LatencyTable | None = None,
) -> Plan:
    """What to do at each site so that the budget is met; the model is not changed.

    `example` is a batch as the model takes it. `preset` serves all sites but those that `select` gives
    another, or None; sites that it cannot serve stay dense. Of several presets, or of "auto", `Lagrangian`
    takes at each site the one that loses least at its cost, `Uniform` the first that serves. `rule` chooses
    the ranks (`Uniform()`), `method` takes the place of the presets' own. With a `metric`, weights are
    approximated in the inner product that the `statistics` of calibration data give them, and rules see the
    loss that they predict. A budget in latency times layers, and keeps the times in `latencies`; for one in
    two units the rule is asked several times (`allot`).

    Raises:
        BudgetError, SelectionError, UnsupportedError, WeightError: see `Budget`, `choose`, `check_finite`.

    >>> net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
    >>> plan(net, Budget(params=0.25), example=torch.zeros(1, 16, 8, 8)).layers["2"]["weight"].ranks
    {'R0': 13, 'R1': 12}
    """
    rule = Uniform() if rule is None else rule
    table = LatencyTable() if latencies is None else latencies
    model = opened(model)
    choices = choose(model, find_sites(model, example), preset, select)
    running = budget is not None and not set(budget.units) <= set(STORED)
    choices = [_dense_under(model, metric, choice, running) for choice in choices]
    chosen_metrics = _metrics(model, choices, metric, example)
    offers = {
        offer.name: offer
        for choice in choices
        for offer in offered(model, choice, chosen_metrics.get(choice.site.name), method, statistics, table)
    }
    candidates = [offer.candidate() for offer in offers.values()]
    chosen = winners(candidates, allot(rule, candidates, budget))
    layers: dict[str, dict[str, LayerPlan]] = {}
    dense = {c.site.name: c.reason for c in choices if not c.schemes}
    for site, (candidate, ranks) in chosen.items():
        if ranks is None:
            dense[site] = "factors would cost as much as the weight"
            continue
        offer = offers[candidate.name]
        layers.setdefault(offer.site.module, {})[offer.site.parameter] = _layer(offer, ranks)
    request = {
        "budget": vars(budget) if budget else None,
        "preset": preset,
        "rule": serde.to_dict(rules, rule),
    }
    return Plan(
        layers, dense, provenance=Provenance(request=request | ({"select": dict(select)} if select else {}))
    )


def _dense_under(model: nn.Module, metric: Metric | None, choice: Choice, running: bool) -> Choice:
    """What has no moments stays dense under a metric, as other errors cannot be compared with its losses, and
    what is not called under a budget of what layers take to run."""
    if choice.schemes and running and choice.site.example is None:
        return Choice(choice.site, (), "its layer was not called, so that nobody knows what it takes to run")
    if metric is None or not choice.schemes:
        return choice
    layer = model.get_submodule(choice.site.module)
    reasons = [reason for name in sorted(metric.needs) if (reason := refusal([layer], name))]
    return Choice(choice.site, (), reasons[0]) if reasons else choice


def _layer(offer: Offer, ranks: Mapping[Axis, int]) -> LayerPlan:
    format_, layout = offer.scheme.preset.format, str(offer.scheme.layout)
    pivoted = offer.scheme.pivoted(ranks)
    return LayerPlan(format_, layout, ranks, offer.method, offer.site.example, offer.metric, pivoted)


def _metrics(
    model: nn.Module, choices: Sequence[Choice], metric: Metric | None, example: Any
) -> dict[str, Metric]:
    """The metric of every site: about the mean where a bias or a normalisation takes a shift up.

    Layers that share a weight have a mean each, and tables nothing that could. The shift of a transposed
    convolution depends on the place within a stride, so that one number for each output does not take it up.
    """
    sites = [c.site for c in choices if c.schemes]
    if metric is None:
        return {}
    if "centred" not in {f.name for f in fields(metric)}:  # type: ignore[arg-type]
        return {site.name: metric for site in sites}
    free = followed_by_norm(model, (example, None))
    return {
        site.name: replace(
            metric,  # type: ignore[type-var]
            centred=not site.shared and _shifts(model.get_submodule(site.module), site.module in free),
        )
        for site in sites
    }


def _shifts(layer: nn.Module, free: bool) -> bool:
    """Whether the outputs of a layer may shift by a constant each, freely or taken up by its bias."""
    return order_of(layer) is not None and (free or layer.bias is not None)
