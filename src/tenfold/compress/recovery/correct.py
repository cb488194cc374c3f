"""Correction in the order of the forward pass: every site makes up for the errors of those before it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import nn

from tenfold.compress.batches import Forward, length, outputs_of
from tenfold.compress.calibration.cross import CrossMoments, CrossSums
from tenfold.compress.calibration.lockstep import Stop, in_step
from tenfold.compress.calibration.samples import drawn, few
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.calibration.watching import check_seen
from tenfold.compress.opening import opened
from tenfold.compress.plan import Plan
from tenfold.compress.recovery.one_sided import shown
from tenfold.compress.recovery.pairs import Pair, reached
from tenfold.compress.recovery.refit import Refit, lost, used
from tenfold.compress.recovery.twins import TwinSite, check_plan, sites_in_order
from tenfold.core.errors import OptionError
from tenfold.measure.running import device_of, evaluating


@dataclass(frozen=True)
class Corrected:
    """How far a site's outputs are from those wanted, √(E‖ŷ - y‖² / E‖y‖²), on the inputs that it has now.

    About the means, where a bias or a normalisation takes these up; `norm` names the batch norm whose running
    mean did. Of a site before a ReLU, only errors count that it shows (`one_sided`).
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
    rounds: int = 3,
    dense_too: bool = False,
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

    Before a ReLU that alone sees the output, normalised or added to a shortcut as may be, what the ReLU gives
    is wanted: errors that it hides do not count. The wanted outputs are then chosen anew behind each of the
    `rounds` of fitting (`one_sided`), with the sum of the dense block as the aim.

    Both models run once, on all batches in step, so that the activations of all samples between two layers
    are in memory some fifteen times, as inputs and outputs of both models and what is computed of them: give
    fewer `samples` of a large model. Layers that are called several times in a pass, and those that share
    their weight with others, keep their factors. What the site sees is in float32 at least, without autocast.

    Args:
        batches: inputs, or (inputs, labels), of which the labels are not looked at.
        statistics: of the dense model, for metrics that weigh outputs; as given to `apply_`.
        samples: read no more than so many.
        ridge: how firmly the dense weight is held on to, see `target_weight`.
        dense_too: have layers behind that stayed dense make up for errors, too; else they are not touched.
        rounds: fits of a site before a ReLU; 0: its outputs are to be the dense ones, whatever is behind.
        forward: called as `forward(model, batch)` with the whole batch.
        seed: of positions that are looked at, and of methods that draw.
        progress: called with the sites done, the number of sites and the name of the next.

    Raises:
        OptionError: unless `ridge` > 0 and `rounds` >= 0.
        SelectionError: if `model` is not factorized as the plan says.
        DataError: if there are no samples, or what comes to a site is not finite.

    Source: sequential updates as in SVD-LLM, Wang et al. 2024, arXiv:2403.07378, and in Zhang et al. 2015,
    arXiv:1505.06798, section 3.3 ("asymmetric reconstruction"), and what a ReLU shows as in its section 3.2;
    here for any format and metric.
    """
    if not 0 < ridge < inf:
        raise OptionError(f"ridge came as {ridge}.", "Give a small number above 0, such as 0.1.")
    if rounds < 0:
        raise OptionError(f"rounds came as {rounds}.", "Give 0 or more, such as 3.")
    check_plan(model, plan)
    model, dense = opened(model), opened(dense)
    read = [batch.batch for batch in drawn(batches, samples, device_of(dense))]
    done: list[Corrected] = []
    with evaluating(model), evaluating(dense), torch.autocast(device_of(dense).type, enabled=False):
        examples = _examples(dense, read, forward)
        sites = sites_in_order(model, dense, plan, examples, forward, rounds > 0, dense_too)
        with (
            in_step(model, _stops(sites, 0), read, forward) as given,
            in_step(dense, _stops(sites, 1), read, forward) as wanted,
        ):
            for site in sites:
                if progress:
                    progress(len(done), len(sites), site.name)
                pairs = [reached(site, *pair) for pair in zip(given, wanted, strict=True)]
                seen = None if statistics is None else statistics.get(site.name)
                done.append(_corrected(site, pairs, seen, ridge, rounds, seed))
                for pair in pairs:
                    pair.renew(site)
                del pairs, pair  # those of the next site take their memory
    if progress:
        progress(len(sites), len(sites), "")
    return tuple(done)


def _examples(dense: nn.Module, read: Sequence[Any], forward: Forward | None) -> Sequence[Any]:
    """Batches that show how the model is made: a small one, or two where they have one sample each."""
    small = read[0] if forward else few(read[0])
    if small is not read[0]:
        try:
            outputs_of(dense, small)
        except Exception:  # whatever a model says to a part of a batch, it takes the whole
            small = read[0]
    return [small] if length(small) > 1 else read[:2]


def _stops(sites: Sequence[TwinSite], side: int) -> list[Stop]:
    """Where the passes of the model (0) or of the dense one (1) stand still."""
    layers: list[Stop] = [(site.layer, site.source)[side] for site in sites]
    return layers + [site.receivers[side] for site in sites if site.receivers]


def _corrected(
    site: TwinSite, pairs: Sequence[Pair], seen: SiteStatistics | None, ridge: float, rounds: int, seed: int
) -> Corrected:
    if (wanted := _moments(site, pairs, seed)) is None:
        return Corrected(site.name, 0.0, 0.0)
    for sums, what in ((wanted.pp, "inputs"), (wanted.yp, "outputs wanted"), (wanted.yy, "outputs wanted")):
        check_seen(sums, what, site.name)
    fit = Refit.of(site, wanted, seen, ridge, seed)
    if site.slope is None:
        before, after = _matched(site, wanted, fit)
    else:
        before, after = _matched_behind(site, pairs, wanted, fit, rounds)
    return Corrected(site.name, before, after, site.norm if site.norm_shifts else None)


def _matched(site: TwinSite, wanted: CrossMoments, fit: Refit) -> tuple[float, float]:
    """Fit the site to give the wanted outputs; the errors before and after."""
    free = used(site, wanted)
    before = free.error(site.weight())
    fit(wanted)
    return before, free.error(site.weight())


def _matched_behind(
    site: TwinSite, pairs: Sequence[Pair], wanted: CrossMoments, fit: Refit, rounds: int
) -> tuple[float, float]:
    """Fit the site to give what is wanted behind the ReLU; the errors that this shows before and after."""
    whole = float(used(site, wanted).yy.sum().clamp_min(torch.finfo(torch.float64).tiny))
    _, before = shown(site, pairs, wanted, lost(site, wanted), fit.seed)
    moments = wanted
    for _ in range(rounds):
        fit(moments)
        moments, after = shown(site, pairs, wanted, lost(site, moments), fit.seed)
    return (before / whole) ** 0.5, (after / whole) ** 0.5


def _moments(site: TwinSite, pairs: Sequence[Pair], seed: int) -> CrossMoments | None:
    """Of all batches; None if nothing came to the site."""
    sums = CrossSums(site.source, seed=seed)
    for pair in pairs:
        sums.add(pair.x, pair.y)
    return sums.moments() if sums.count else None
