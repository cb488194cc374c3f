"""Compression in one call."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from tenfold.compress.apply import LayerFit, Progress, apply_
from tenfold.compress.calibration.calibrate import collect
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.latency import LatencyTable
from tenfold.compress.metric import Metric
from tenfold.compress.opening import opened
from tenfold.compress.plan import Plan, plan
from tenfold.compress.recovery.batchnorm import reestimate_batchnorm_
from tenfold.compress.recovery.correct import correct_
from tenfold.compress.select import Selection, Wanted
from tenfold.compress.sites import find_sites
from tenfold.core.errors import DataError
from tenfold.core.pieces import frobenius
from tenfold.decompose import Method
from tenfold.decompose.base import relative
from tenfold.ranks import Budget, RankRule


class Compressed(NamedTuple):
    """A compressed model, the plan that led to it, and how each site was fitted."""

    model: nn.Module
    plan: Plan
    fits: tuple[LayerFit, ...]


def compress(
    model: nn.Module,
    budget: Budget | None,
    *,
    example: Any,
    preset: Wanted = "tucker2",
    select: Selection | None = None,
    rule: RankRule | None = None,
    method: Method[Any] | None = None,
    metric: Metric | None = None,
    data: Iterable[Any] | None = None,
    statistics: Statistics | None = None,
    latencies: LatencyTable | None = None,
    correct: bool = False,
    microbatch: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Compressed:
    """A smaller copy of the model: `plan`, then `apply_`. The model itself is not changed.

    `data` are a few batches, each inputs or (inputs, labels), that can be read several times. With a `metric`
    they calibrate the inner product in which weights are approximated (unless `statistics` of them are
    given); a `microbatch` of samples at a time, as `collect` says, takes less memory than whole batches. With
    `correct`, every site then makes up for the errors of those before it (`correct_`, which needs memory for
    some fifteen times the activations of all `data` between two layers, in microbatches or not). In the end
    the statistics of batch normalisation are estimated anew from whole batches, without gradients, where the
    correction has not set them.

    Raises:
        DataError: if `data` is an iterator, which can be read once only, or missing for `correct`; and what
            `plan` and `apply_` raise.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
    >>> small = compress(net, Budget(params=0.25), example=torch.zeros(1, 16, 8, 8)).model
    >>> sum(p.numel() for p in small.parameters() if p.ndim > 1) <= 0.25 * (32 * 16 * 9 + 32 * 32 * 9)
    True
    """
    if isinstance(data, Iterator):
        raise DataError("data came as an iterator, but is read several times.", "Give a list or a loader.")
    if correct and data is None:
        raise DataError("there are no data to correct the sites with.", "Give data=, or correct=False.")
    if metric is not None and statistics is None and data is not None:
        sites = find_sites(model, example)
        statistics = collect(model, data, sites, want=metric.needs, microbatch=microbatch, seed=seed)
    chosen = plan(
        model,
        budget,
        example=example,
        preset=preset,
        select=select,
        rule=rule,
        method=method,
        metric=metric,
        statistics=statistics,
        latencies=latencies,
    )
    copy = deepcopy(model)
    fits = apply_(copy, chosen, seed=seed, statistics=statistics, progress=progress)
    if data is not None:
        done = correct_(copy, model, chosen, data, statistics=statistics, seed=seed) if correct else ()
        del statistics  # a few times the model's memory, which activations take now
        reestimate_batchnorm_(copy, data, keep={site.norm for site in done if site.norm})
    return Compressed(copy, chosen, renewed(fits, copy, model) if correct else fits)


@torch.no_grad()
def renewed(fits: Iterable[LayerFit], small: nn.Module, dense: nn.Module) -> tuple[LayerFit, ...]:
    """The fits with the relative errors that the weights of `small` have now, after correction or tuning.

    >>> net = nn.Sequential(nn.Linear(16, 16))
    >>> small, _, fits = compress(net, Budget(params=0.5), example=torch.zeros(1, 16), preset="weight_svd")
    >>> _ = small[0].weight.requires_grad_(False).right.zero_()
    >>> [fit.error for fit in renewed(fits, small, net)]
    [1.0]
    """
    dense = opened(dense)
    return tuple(replace(fit, error=_error(small, dense.get_parameter(fit.name), fit.name)) for fit in fits)


def _error(small: nn.Module, weight: nn.Parameter, name: str) -> float:
    layer: Any = small.get_submodule(name.rpartition(".")[0])
    return relative(frobenius(weight - layer.weight.dense()), frobenius(weight))
