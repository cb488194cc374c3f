"""The compression step of learning-compression: ranks for which loss and cost together are least."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import inf
from typing import Any

from torch import nn

from tenfold.compress.cost import flops_of, of_all_calls
from tenfold.compress.opening import opened
from tenfold.compress.plan import LayerPlan, Plan
from tenfold.compress.presets import Scheme
from tenfold.compress.select import Selection, Wanted, choose
from tenfold.compress.sites import Site, find_sites
from tenfold.compress.training.alternate import Choose
from tenfold.core.errors import OptionError
from tenfold.ranks import Allotment, Budget, Candidate
from tenfold.ranks.base import by_site
from tenfold.ranks.curve import Point
from tenfold.ranks.predicted import predicted

UNITS = "params", "bytes", "flops"


def priced(
    model: nn.Module,
    alpha: float,
    *,
    example: Any,
    preset: Wanted = ("channel_svd", "weight_svd"),
    select: Selection | None = None,
    unit: str = "params",
) -> Choose:
    """What chooses for every weight the ranks of least alpha · cost + mu/2 · (what they cut off)².

    The cost is a fraction of that of all sites dense, so `alpha` says by how much the loss may rise to be
    rid of them all. A weight whose ranks would cost more than they are worth stays dense. Of several presets
    the best at each site is taken, by the same sum. Exact for low rank; for other formats what ranks cut off
    is a bound, read off singular values.

    Args:
        example: a batch as the model takes it.
        preset, select: as in `plan`.
        unit: of the cost: params, bytes or flops.

    Raises:
        OptionError: unless alpha > 0 and the unit is one of these.
        SelectionError: if a pattern matches no site, or nothing is left to compress.

    Source: Idelbayev & Carreira-Perpiñán, CVPR 2020, section 4; of several schemes: the same, ICIP 2021.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 4, bias=False))
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.diag(torch.tensor([3.0, 0.3, 0.2, 0.1])))
    >>> find = priced(model, 1.0, example=torch.zeros(1, 4))
    >>> find(model, 1.0).layers["0"]["weight"].ranks, find(model, 100.0).dense
    ({'R': 1}, {'0.weight': 'ranks would cost more than they are worth'})
    """
    if not 0 < alpha < inf or unit not in UNITS:
        raise OptionError(
            f"alpha={alpha} and unit='{unit}' came.", f"Give a finite alpha > 0, and {', '.join(UNITS)}."
        )
    model = opened(model)
    choices = choose(model, find_sites(model, example), preset, select)
    offers = tuple(_offer(model, c.site, scheme) for c in choices for scheme in c.schemes)
    reasons = {c.site.name: c.reason for c in choices if not c.schemes}
    return partial(_cheapest, offers, reasons, alpha, Budget(**{unit: 1.0}))


@dataclass(frozen=True, eq=False)
class _Offer:
    """A scheme for a site."""

    site: Site
    scheme: Scheme
    flops: Callable[[Allotment], int] | None

    @property
    def name(self) -> str:
        return f"{self.site.name}: {self.scheme.preset.name}"

    def candidate(self, model: nn.Module) -> Candidate:
        """With the weight that the model has now."""
        weight, layout = model.get_parameter(self.site.name).detach(), self.scheme.layout
        return Candidate(
            self.name,
            self.scheme.preset.format_class,
            layout.mode_shape,
            self.scheme.preset.whole,
            partial(layout.to_modes, weight),
            flops=self.flops,
            itemsize=weight.element_size(),
            site=self.site.name,
            stored=self.scheme.stored,
        )

    def layer(self, ranks: Allotment) -> LayerPlan:
        """The plan with these ranks."""
        row = self.scheme.preset
        return LayerPlan(
            row.format,
            str(self.scheme.layout),
            ranks or {},
            row.method,
            self.site.example,
            pivoted=ranks is not None and self.scheme.pivoted(ranks),
        )


def _offer(model: nn.Module, site: Site, scheme: Scheme) -> _Offer:
    layer, kind = model.get_submodule(site.module), scheme.preset.format_class
    count = of_all_calls(site.inputs, lambda shape: flops_of(layer, kind, scheme.layout, shape))
    return _Offer(site, scheme, None if count is None else _remembered(count))


def _remembered(count: Callable[[Allotment], int]) -> Callable[[Allotment], int]:
    """The same numbers, each counted once for all rounds."""

    @cache
    def known(ranks: tuple[tuple[str, int], ...] | None) -> int:
        return count(None if ranks is None else dict(ranks))

    return lambda ranks: known(None if ranks is None else tuple(ranks.items()))


def _cheapest(
    offers: Sequence[_Offer],
    reasons: dict[str, str],
    alpha: float,
    terms: Budget,
    model: nn.Module,
    mu: float,
) -> Plan:
    model = opened(model)
    candidates = [offer.candidate(model) for offer in offers]
    named = {offer.name: offer for offer in offers}
    sites = by_site(candidates)
    price = alpha / sum(group[0].cost(None, terms.unit) for group in sites.values())
    layers: dict[str, dict[str, LayerPlan]] = {}
    dense = dict(reasons)
    for site, group in sites.items():
        points: list[Point] = [(group[0].cost(None, terms.unit), 0.0, group[0].name, None)]
        points += [point for c in group for point in predicted(c, terms)]
        _, _, name, ranks = min(points, key=lambda p: (price * p[0] + 0.5 * mu * p[1], p[0]))
        if ranks is None:
            dense[site] = "ranks would cost more than they are worth"
        else:
            own = named[name].site
            layers.setdefault(own.module, {})[own.parameter] = named[name].layer(ranks)
    return Plan(layers, dense)
