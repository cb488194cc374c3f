"""Fitting a format to one weight in the metric of the data, and what the fit loses there."""

from typing import Any

import torch
from torch import Tensor

from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.metric import Metric
from tenfold.compress.moments import outputs_first
from tenfold.compress.refine import metric_roots, refined, weighted_square
from tenfold.compress.roots import fitted_in
from tenfold.core.layout import Layout
from tenfold.decompose import Fit, Method
from tenfold.formats import Format, LowRank, Ranks, SlicedLowRank


def fitted(
    method: Method[Any],
    weight: Tensor,
    layout: Layout,
    ranks: Ranks,
    metric: Metric | None = None,
    seen: SiteStatistics | None = None,
    seed: int = 0,
) -> Fit[Any]:
    """The format of `method` with these ranks, fitted to a weight seen through `layout`.

    Without a metric or statistics the Euclidean one counts. Where the layout cannot be whitened exactly, the
    fit is refined, if the metric says so.
    """
    tensor = layout.to_modes(weight)
    if seen is None or metric is None:
        return method.fit(tensor, ranks, generator=seed)
    roots = metric.roots(seen, layout)
    fit = fitted_in(method, tensor, ranks, roots, generator=seed)
    if metric.refine and not metric.is_whitened(seen, layout):
        return refined(fit, weight, layout, roots, metric_roots(metric, seen, weight, layout), metric.refine)
    return fit


def squared_loss(
    value: Format,
    weight: Tensor,
    layout: Layout,
    metric: Metric | None = None,
    seen: SiteStatistics | None = None,
) -> float:
    """‖G^½ (W - Ŵ) P^½‖² of a fit, in the metric itself even where whitening is approximate."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    change = weight.to(wide) - layout.to_weight(value.map(lambda f: f.to(wide)).dense())
    if metric is None or seen is None:
        return float(change.square().sum())
    return float(weighted_square(outputs_first(change, layout), *metric_roots(metric, seen, weight, layout)))


def known_from_spectra(
    kind: type[Format], layout: Layout, metric: Metric | None, seen: SiteStatistics | None
) -> bool:
    """Whether singular values say exactly what each rank loses: for matrices that are whitened exactly."""
    exact = metric is None or seen is None or metric.is_whitened(seen, layout)
    return issubclass(kind, LowRank | SlicedLowRank) and exact
