"""The candidates that a rank rule chooses from, made of what is known of a site."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.cost import flops_of, of_all_calls
from tenfold.compress.fit import fitted, known_from_spectra, squared_loss
from tenfold.compress.latency import LatencyTable, latency_of
from tenfold.compress.metric import Metric
from tenfold.compress.presets import Scheme
from tenfold.compress.roots import shortened, whitened
from tenfold.compress.select import Choice
from tenfold.compress.sites import Site
from tenfold.core.arrays import check_finite
from tenfold.core.errors import DataError
from tenfold.core.layout import Layout
from tenfold.core.network import Axis
from tenfold.decompose import Method
from tenfold.formats import LowRank
from tenfold.ranks import Candidate


@dataclass(frozen=True)
class Offer:
    """One scheme for one site, with the method that would fit it and the metric of the data."""

    name: str
    layer: nn.Module
    site: Site
    scheme: Scheme
    method: Method[Any]
    metric: Metric | None
    seen: SiteStatistics | None
    table: LatencyTable

    @property
    def weight(self) -> Tensor:
        """The dense weight."""
        return self.layer.get_parameter(self.site.parameter).detach()

    @property
    def layout(self) -> Layout:
        """How the weight becomes modes."""
        return self.scheme.layout

    def candidate(self) -> Candidate:
        """What a rank rule sees of it."""
        kind, whole, inputs = self.scheme.preset.format_class, self.scheme.preset.whole, self.site.inputs
        known = known_from_spectra(kind, self.layout, self.metric, self.seen)
        runs = self.layer, kind, self.layout
        return Candidate(
            self.name,
            kind,
            self.layout.mode_shape,
            whole,
            lambda: self.layout.to_modes(self.weight),
            weighted=None if self.seen is None else self.weighted,
            scale=1.0 if self.seen is None else 0.5,
            flops=of_all_calls(inputs, lambda shape: flops_of(*runs, shape)),
            latency=of_all_calls(inputs, lambda shape: latency_of(*runs, shape, self.table, whole)),
            itemsize=self.weight.element_size(),
            site=self.site.name,
            fit=None if known else self.loss,
            stored=self.scheme.stored,
        )

    def weighted(self) -> Tensor:
        """The modes' tensor in the metric, or a smaller one with the same singular values."""
        assert self.metric is not None and self.seen is not None
        roots, tensor = self.metric.roots(self.seen, self.layout), self.layout.to_modes(self.weight)
        exact = self.scheme.preset.format_class is LowRank
        return shortened(tensor, roots) if exact else whitened(tensor, roots)

    def loss(self, ranks: Mapping[Axis, int]) -> float:
        """The squared error of a fit with these ranks, in the metric."""
        weight, layout, metric, seen = self.weight, self.layout, self.metric, self.seen
        value = fitted(self.method, weight, layout, ranks, metric, seen).value
        return squared_loss(value, weight, layout, metric, seen)


def offered(
    model: nn.Module,
    choice: Choice,
    metric: Metric | None,
    method: Method[Any] | None,
    statistics: Statistics | None,
    table: LatencyTable,
) -> Iterator[Offer]:
    """An offer for every scheme of a site; several are named after their presets too.

    Raises:
        WeightError: if the weight holds NaN or infinite entries.
        DataError: if there are no statistics for the metric.
    """
    site, seen = choice.site, None
    if not choice.schemes:
        return
    check_finite(model.get_parameter(site.name).detach(), site.name)
    if metric is not None:
        if statistics is None or site.name not in statistics:
            raise DataError(
                f"the metric needs statistics of '{site.name}', but none were given.",
                "Collect them: collect(model, batches, find_sites(model, example)).",
            )
        seen = statistics[site.name]
    for scheme in choice.schemes:
        name = site.name if len(choice.schemes) == 1 else f"{site.name}: {scheme.preset.name}"
        fitting = method or scheme.preset.method
        yield Offer(name, model.get_submodule(site.module), site, scheme, fitting, metric, seen, table)
