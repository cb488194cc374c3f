"""What every preset would make of every site at a budget, without fitting anything."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.cli.bars import Bar
from tenfold.compress import Plan, Site, apply_, find_sites, plan
from tenfold.compress.opening import opened
from tenfold.core.errors import TenfoldError
from tenfold.measure import flops
from tenfold.ranks import Budget


@dataclass(frozen=True)
class SiteCost:
    """A site as it is: elements, and FLOPs of the layer for the input that the example brings to it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    flops: int | None


@dataclass(frozen=True)
class PresetCost:
    """What a preset makes of a site; without steps it stays dense, for the reason in `note`."""

    site: str
    preset: str
    params: int
    flops: int | None
    steps: tuple[str, ...] = ()
    ranks: tuple[tuple[str, int], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Costs:
    """All of them; `failed` says of a preset why it has no plan at all."""

    sites: tuple[SiteCost, ...]
    presets: tuple[PresetCost, ...]
    failed: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "sites": [asdict(s) for s in self.sites],
            "presets": [asdict(p) | {"ranks": dict(p.ranks)} for p in self.presets],
            "failed": self.failed,
        }


def costs(model: nn.Module, example: Tensor, budget: Budget, names: Sequence[str], bar: Bar) -> Costs:
    """Plan with each preset, and count."""
    model = opened(model)
    sites = find_sites(model, example)
    dense = {s.name: _dense(model, s) for s in sites}
    found: list[PresetCost] = []
    failed: dict[str, str] = {}
    for k, name in enumerate(names):
        bar.at(k, len(names), name)
        try:
            chosen = plan(model, budget, example=example, preset=name)
        except TenfoldError as error:
            failed[name] = f"{error.problem} {error.remedy}".strip()
            continue
        found += _costs_of(model, name, chosen, sites, dense)
    return Costs(tuple(dense.values()), tuple(found), failed)


def _dense(model: nn.Module, site: Site) -> SiteCost:
    layer = deepcopy(model.get_submodule(site.module)).to("meta")
    return SiteCost(site.name, site.kind, site.shape, site.numel, _flops(layer, site))


def _costs_of(
    model: nn.Module, preset: str, chosen: Plan, sites: Sequence[Site], dense: dict[str, SiteCost]
) -> Iterator[PresetCost]:
    small = deepcopy(model).to("meta")
    apply_(small, chosen, fit=False)
    for site in sites:
        whole = dense[site.name]
        if site.name in chosen.dense:
            yield PresetCost(site.name, preset, whole.params, whole.flops, note=chosen.dense[site.name])
            continue
        layer: Any = small.get_submodule(site.module)
        ranks = tuple(chosen.layers[site.module][site.parameter].ranks.items())
        yield PresetCost(
            site.name, preset, layer.weight.numel(), _flops(layer, site), tuple(layer.program.kinds), ranks
        )


def _flops(layer: nn.Module, site: Site) -> int | None:
    """None for a layer that the example does not reach."""
    return None if site.example is None else flops(layer, torch.empty(site.example, device="meta"))
