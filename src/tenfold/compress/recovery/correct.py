"""Correction in the order of the forward pass: every site makes up for the errors of those before it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.compress.batches import Forward
from tenfold.compress.calibration.cross import CrossMoments, CrossSums
from tenfold.compress.calibration.lockstep import Walk, in_step
from tenfold.compress.calibration.samples import drawn
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.fit import fitted
from tenfold.compress.plan import Plan
from tenfold.compress.presets import METHODS
from tenfold.compress.recovery.twins import TwinSite, sites_in_order
from tenfold.core.errors import ModelError, OptionError
from tenfold.core.layout import Layout
from tenfold.measure.running import device_of, evaluating


@dataclass(frozen=True)
class Corrected:
    """How far a site's outputs are from the dense ones, √(E‖ŷ - y‖² / E‖y‖²), on the inputs that it has now.

    About the means, where a bias or a normalisation takes these up; `norm` names the batch norm whose running
    mean did.
    """

    name: str
    before: float
    after: float
    norm: str | None = None


def correct_(
    model: nn.Module,
    dense: nn.Module,
    plan: Plan,
    batches: Iterable[Any],
    *,
    statistics: Statistics | None = None,
    samples: int | None = None,
    ridge: float = 0.1,
    forward: Forward | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], object] | None = None,
) -> tuple[Corrected, ...]:
    """Fit the factors of the sites of `model` anew, in place, to give what `dense` gives there.

    `model` is what `apply_` made of `dense` by `plan`. In the order of the forward pass, the weight that best
    maps the inputs which a site has now, behind sites already compressed, to the outputs of the dense model
    takes the place of the dense weight (`target_weight`), and the moment of those inputs takes that of the
    calibration. Means go into biases, or into a batch norm behind, whose variances stay: do not estimate the
    statistics of such a batch norm anew afterwards. Where a module, such as the next layer norm, receives the
    output added to a residual stream, the dense sum is wanted: the site makes up for errors of the stream.

    Both models run once, on all batches in step, so that the activations of all samples between two layers
    are in memory: give fewer `samples` of a large model. Layers that are called several times in a pass keep
    their factors.

    Args:
        batches: inputs, or (inputs, labels), of which the labels are not looked at.
        statistics: of the dense model, for metrics that weigh outputs; as given to `apply_`.
        samples: read no more than so many.
        ridge: how firmly the dense weight is held on to, see `target_weight`.
        forward: called as `forward(model, batch)` with the whole batch.
        seed: of positions that are looked at, and of methods that draw.
        progress: called with the sites done, the number of sites and the name of the next.

    Raises:
        OptionError: unless `ridge` > 0.
        SelectionError: if `model` is not factorized as the plan says.
        DataError: if there are no samples.

    Source: sequential updates as in SVD-LLM, Wang et al. 2024, arXiv:2403.07378, and in Zhang et al. 2015,
    arXiv:1505.06798, section 3.3 ("asymmetric reconstruction"); here for any format and metric.
    """
    if not 0 < ridge < inf:
        raise OptionError(f"ridge came as {ridge}.", "Give a small number above 0, such as 0.1.")
    read = [batch.batch for batch in drawn(batches, samples, device_of(dense))]
    sites = sites_in_order(model, dense, plan, read[0], forward)
    done: list[Corrected] = []
    with (
        evaluating(model),
        evaluating(dense),
        in_step(model, _stops(sites, 0), read, forward) as given,
        in_step(dense, _stops(sites, 1), read, forward) as wanted,
    ):
        for site in sites:
            if progress:
                progress(len(done), len(sites), site.name)
            pairs = [_reached(site, *pair) for pair in zip(given, wanted, strict=True)]
            seen = None if statistics is None else statistics.get(site.name)
            done.append(_corrected(site, _moments(site, pairs, seed), seen, ridge, seed))
            for pair in pairs:
                pair.renew(site.layer)
    if progress:
        progress(len(sites), len(sites), "")
    return tuple(done)


def target_weight(
    weight: Float[Tensor, "*g o k"],
    inputs: Float[Tensor, "*g k k"],
    cross: Float[Tensor, "*g o k"],
    ridge: float,
) -> Float[Tensor, "*g o k"]:
    """The weight that gives outputs y on inputs p: (E[y pᵀ] + λ W) (E[p pᵀ] + λ I)⁻¹.

    It minimises E‖y - V p‖² + λ ‖V - W‖² over V, with λ `ridge` times the mean eigenvalue of E[p pᵀ]:
    directions that the data hardly show keep the weight W. Stacks of matrices are solved one by one.

    >>> p = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> w = torch.tensor([[3.0, 1.0]])
    >>> target_weight(torch.zeros(1, 2), p.T @ p, w @ p.T @ p, ridge=1e-6).round(decimals=4)
    tensor([[3., 1.]])
    """
    mean = inputs.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(inputs.dtype).tiny)
    damping = (ridge * mean)[..., None, None]
    eye = torch.eye(inputs.shape[-1], dtype=inputs.dtype, device=inputs.device)
    return torch.linalg.solve(inputs + damping * eye, (cross + damping * weight).mT).mT


def _stops(sites: Sequence[TwinSite], side: int) -> list[nn.Module]:
    """Where the passes of the model (0) or of the dense one (1) stand still."""
    layers: list[nn.Module] = [(site.layer, site.source)[side] for site in sites]
    return layers + [site.receivers[side] for site in sites if site.receivers]


@dataclass(frozen=True)
class _Pair:
    """One batch at one site: its inputs, the outputs that are wanted, and the sum that its output went into.

    With `rest` what the output was added to, the sum is rest + output, and is renewed in place.
    """

    x: Tensor
    y: Tensor
    sum: Tensor | None = None
    rest: Tensor | None = None

    def renew(self, layer: nn.Module) -> None:
        """Put the output of the layer as it is now into the sum."""
        if self.sum is not None and self.rest is not None:
            self.sum.copy_(self.rest + layer(self.x))


def _reached(site: TwinSite, small: Walk, dense: Walk) -> _Pair:
    """Bring both passes before the site, or before what receives its output.

    There the dense sum is wanted: the output makes up for what the rest of the sum has lost, too.
    """
    x, twin = _input(small, site.layer), _input(dense, site.source)
    if site.receivers is None:
        return _Pair(x, site.source(twin))
    total, wanted = (_input(walk, m) for walk, m in zip((small, dense), site.receivers, strict=True))
    rest = total - site.layer(x)
    return _Pair(x, wanted - rest, total, rest)


def _moments(site: TwinSite, pairs: Sequence[_Pair], seed: int) -> CrossMoments:
    sums = CrossSums(site.source, seed=seed)
    for pair in pairs:
        sums.add(pair.x, pair.y)
    return sums.moments()


def _input(walk: Walk, module: nn.Module) -> Tensor:
    at = walk.next()
    if at is None or at[0] is not module:
        raise ModelError(
            "the layers of the model are not called in one order for all batches.",
            "Leave the correction out for models whose path depends on the data.",
        )
    return at[1]


def _corrected(
    site: TwinSite, moments: CrossMoments, seen: SiteStatistics | None, ridge: float, seed: int
) -> Corrected:
    weight, metric = site.source.get_parameter("weight").detach(), site.plan.metric
    free = metric is not None and metric.centred
    used = moments.about_means() if free else moments
    before = used.error(site.layer.weight.dense())
    wanted = target_weight(used.matrix(weight), used.pp, used.yp, ridge).reshape(weight.shape).to(weight)
    here = replace(
        seen or SiteStatistics(1), patch_mean=moments.p.to(weight), patch_moment=moments.pp.to(weight)
    )
    layout = Layout.parse(site.plan.layout).bind(weight.shape, site.name)
    method = site.plan.method or METHODS[site.plan.format]
    site.layer.weight.set_(fitted(method, wanted, layout, site.plan.ranks, metric, here, seed).value)
    if free:
        _shift(site, moments.lost(site.layer.weight.dense()))
    norm = site.norm if free and site.layer.bias is None else None
    return Corrected(site.name, before, used.error(site.layer.weight.dense()), norm)


@torch.no_grad()
def _shift(site: TwinSite, lost: Tensor) -> None:
    """Give the bias, or the mean of the batch norm behind, what the outputs lose on average."""
    bias: Tensor | None = site.source.bias  # type: ignore[assignment]
    if bias is not None and site.layer.bias is not None:
        site.layer.bias.copy_(bias + lost.to(bias))
    elif site.means is not None:
        small, dense = site.means
        small.copy_(dense - lost.to(dense))
