"""The network that a cell starts from, before any training."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import study
import torch
from cells import SCRATCH, Cell
from images import Data, calibration
from protocol import Protocol
from torch import nn

from tenfold import (
    Budget,
    KroneckerFisher,
    Lagrangian,
    Plan,
    Uniform,
    apply_,
    compress,
    find_sites,
    plan,
)
from tenfold.compress import Site, apply_fresh_
from tenfold.compress.cost import dense_flops
from tenfold.measure import flops
from tenfold.measure.size import parameters
from tenfold.zoo import networks

SCRATCH_PRESET = "spatial_svd"


@dataclass(frozen=True)
class Start:
    """A factorized network, the plan that led to it, and what is worth noting."""

    model: nn.Module
    plan: Plan
    notes: dict[str, Any]


def untrained(model: str, classes: int, seed: int) -> nn.Module:
    """A network of the zoo with the weights that a seed gives."""
    torch.manual_seed(seed)
    return networks[model](classes)


def made(cell: Cell, dense: nn.Module, data: Data, protocol: Protocol) -> Start:
    """The factorized network of a cell; `dense` is trained, or as built if the cell trains from scratch."""
    begun = perf_counter()
    if cell.is_ours:
        model, chosen = _ours(cell, dense, data, protocol)
    else:
        model, chosen = _studied(cell, dense, data, protocol)
    return Start(model, chosen, {"seconds": round(perf_counter() - begun, 1), "formats": _formats(chosen)})


def _studied(cell: Cell, dense: nn.Module, data: Data, protocol: Protocol) -> tuple[nn.Module, Plan]:
    """As in the study: from the weights alone, or from scratch with random factors."""
    chosen = study.study_plan(dense, cell.model, cell.method, cell.keep, data.example)
    if cell.strategy == SCRATCH:
        apply_fresh_(dense, chosen, seed=protocol.seed)
    else:
        apply_(dense, chosen, seed=protocol.seed)
    return dense, chosen


def _ours(cell: Cell, dense: nn.Module, data: Data, protocol: Protocol) -> tuple[nn.Module, Plan]:
    """Our best: ranks of the whole network and factors that lose least on training images.

    From scratch there is nothing to lose yet: spatial SVDs with random factors, the same fraction everywhere.
    """
    sites = find_sites(dense, data.example)
    ends = {sites[0].module: None, sites[-1].module: None}
    budget = _budget(cell, dense, sites[1:-1], data, protocol)
    if cell.strategy == SCRATCH:
        preset = cell.preset(SCRATCH_PRESET)
        chosen = plan(dense, budget, example=data.example, preset=preset, select=ends, rule=Uniform())
        apply_fresh_(dense, chosen, seed=protocol.seed)
        return dense, chosen
    small, chosen, _ = compress(
        dense,
        budget,
        example=data.example,
        preset=cell.preset(protocol.preset),
        select=ends,
        rule=Lagrangian(),
        metric=KroneckerFisher(),
        data=calibration(data, protocol),
        correct=protocol.correct,
        seed=protocol.seed,
    )
    return small, chosen


def _budget(cell: Cell, dense: nn.Module, sites: Sequence[Site], data: Data, protocol: Protocol) -> Budget:
    """What the sites may store, and take to run: that of the whole network, less that of the rest of it."""
    rest = parameters(dense) - sum(site.numel for site in sites)
    stored = study.allowance(cell.model, cell.keep, data.classes) - rest
    if protocol.flops is None:
        return Budget(params=stored)
    whole = flops(dense, data.example)
    running = sum(dense_flops(dense.get_submodule(site.module), site.example) for site in sites)
    return Budget(params=stored, flops=int(protocol.flops * whole) - (whole - running))


def _formats(chosen: Plan) -> dict[str, int]:
    """How many layers have which format and layout, for JSON."""
    layers = [f"{layer.format}: {layer.layout}" for ps in chosen.layers.values() for layer in ps.values()]
    return dict(Counter(layers))
