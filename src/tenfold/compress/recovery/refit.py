"""A layer fitted to give, on the inputs that it has now, the outputs that are wanted."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tenfold.compress.calibration.cross import CrossMoments
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.fit import fitted
from tenfold.compress.presets import METHODS
from tenfold.compress.recovery.twins import TwinSite
from tenfold.core.layout import Layout
from tenfold.nn import FactorizedLayer

ROUNDING = 1e-5
"""Of the mean square of an input. What is less, about the mean, may be rounding of products in float32."""


def target_weight(
    weight: Float[Tensor, "*g o k"],
    inputs: Float[Tensor, "*g k k"],
    cross: Float[Tensor, "*g o k"],
    ridge: float,
    least: float = 0.0,
) -> Float[Tensor, "*g o k"]:
    """The weight that gives outputs y on inputs p: (E[y pᵀ] + λ W) (E[p pᵀ] + λ I)⁻¹.

    It minimises E‖y - V p‖² + λ ‖V - W‖² over V, with λ `ridge` times the mean eigenvalue of E[p pᵀ], and
    `least` at least: directions that the data hardly show keep the weight W, and so does a matrix of a stack
    whose inputs are all 0. Stacks of matrices are solved one by one.

    >>> p = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> w = torch.tensor([[3.0, 1.0]])
    >>> target_weight(torch.zeros(1, 2), p.T @ p, w @ p.T @ p, ridge=1e-6).round(decimals=4)
    tensor([[3., 1.]])
    """
    damping = (ridge * inputs.diagonal(dim1=-2, dim2=-1).mean(-1)).clamp_min(least)[..., None, None]
    damping = torch.where(damping > 0, damping, 1.0)
    eye = torch.eye(inputs.shape[-1], dtype=inputs.dtype, device=inputs.device)
    return torch.linalg.solve(inputs + damping * eye, (cross + damping * weight).mT).mT


@dataclass(frozen=True)
class Refit:
    """Factors, or a dense weight, and a bias or the mean of a batch norm, from moments of what is wanted.

    `here` is what was seen of the dense model, with the inputs that the site has now.
    """

    site: TwinSite
    here: SiteStatistics
    ridge: float
    seed: int

    @staticmethod
    def of(
        site: TwinSite, moments: CrossMoments, seen: SiteStatistics | None, ridge: float, seed: int
    ) -> "Refit":
        """With the inputs that the moments tell of."""
        like = site.source.get_parameter("weight").detach()
        known = seen or SiteStatistics(1)
        kind = torch.promote_types(like.dtype, torch.float32)
        here = replace(
            known, patch_mean=moments.p.to(like.device, kind), patch_moment=moments.pp.to(like.device, kind)
        )
        return Refit(site, here, ridge, seed)

    @torch.no_grad()
    def __call__(self, moments: CrossMoments) -> None:
        site, free = self.site, used(self.site, moments)
        weight = site.source.get_parameter("weight").detach()
        least = ROUNDING * float(moments.pp.diagonal(dim1=-2, dim2=-1).mean())
        wanted = target_weight(free.matrix(weight), free.pp, free.yp, self.ridge, least)
        self._set(wanted.reshape(weight.shape).to(weight))
        if site.is_free:
            _shift(site, lost(site, moments))

    def _set(self, weight: Tensor) -> None:
        layer, plan = self.site.layer, self.site.plan
        if not isinstance(layer, FactorizedLayer) or plan is None:
            layer.get_parameter("weight").copy_(weight)
            return
        layout = Layout.parse(plan.layout).bind(weight.shape, self.site.name)
        method = plan.method or METHODS[plan.format]
        fit = fitted(method, weight, layout, plan.ranks, plan.metric, self.here, self.seed)
        layer.weight.set_(fit.value)


def used(site: TwinSite, moments: CrossMoments) -> CrossMoments:
    """The moments that count: about the means, where something takes a shift up."""
    return moments.about_means() if site.is_free else moments


def lost(site: TwinSite, moments: CrossMoments) -> Tensor:
    """What the outputs lose on average, which a bias gives back; 0 if nothing does."""
    change = moments.lost(site.weight())
    return change if site.is_free else torch.zeros_like(change)


def _shift(site: TwinSite, change: Tensor) -> None:
    """Add a change to the outputs, by the bias or by the mean of the batch norm behind."""
    before, now = site.biases()
    if before is not None and now is not None:
        now.copy_(before + change.to(before))
    elif site.means is not None:
        small, dense = site.means
        small.copy_(dense - change.to(dense))
