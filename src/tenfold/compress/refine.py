"""Factors at a minimum of the metric itself, where a layout only allows it to be whitened approximately.

Whitening is exact for a moment that is a product over the modes. Where the layout spreads the inputs over
several modes (Tucker-2: channels and taps), or splits an axis (tensor trains), its fit is a good start but no
minimum. The loss ‖G^½ (W - Ŵ) P^½‖² is a polynomial in the factors; L-BFGS descends it in the whitened
coordinates, in which its curvature is more even.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.metric import Metric, latest
from tenfold.compress.moments import outputs_first
from tenfold.compress.roots import ModeRoot, mode_root, rewhitened, unwhitened
from tenfold.core.layout import Layout
from tenfold.decompose import Fit
from tenfold.formats import Format

HISTORY = 20
Pair = tuple[Tensor | None, Tensor | None]
"""Roots A over the outputs and B over (i, *taps) or i, None for the identity: a change E loses ‖A E Bᵀ‖².
A vector is the diagonal of one; such a B is over i."""


def metric_roots(metric: Metric, seen: SiteStatistics, weight: Tensor, layout: Layout) -> Pair:
    """The roots of the metric's two moments, damped as in whitening, in the type of the weight or wider."""
    key = (metric, weight.dtype, layout.weight, layout.sizes)
    return latest(seen, key, lambda: _metric_roots(metric, seen, weight, layout))


def _metric_roots(metric: Metric, seen: SiteStatistics, weight: Tensor, layout: Layout) -> Pair:
    moments, like = metric.sides(seen, layout), weight.to(torch.promote_types(weight.dtype, torch.float32))
    outputs, inputs = (mode_root(m, metric.damping) for m in (moments.outputs, moments.inputs))
    return (
        None if outputs is None else outputs.root.to(like),
        None if inputs is None else inputs.root.to(like),
    )


def weighted_square(change: Tensor, outputs: Tensor | None, inputs: Tensor | None) -> Tensor:
    """‖A E Bᵀ‖² for a change E of a weight (outputs, inputs, *taps); a B over inputs alone acts on every tap.

    >>> e = torch.eye(2)
    >>> weighted_square(e, None, 2 * e), weighted_square(e, torch.tensor([1.0, 2.0]), None)
    (tensor(8.), tensor(5.))
    """
    e = change.flatten(1)
    if inputs is not None:
        e = e.to(inputs.dtype)
        e = _applied(inputs, e.unflatten(1, (inputs.shape[0], -1)), 1).flatten(1)
    e = e if outputs is None else _applied(outputs, e.to(outputs.dtype), 0)
    return e.square().sum()


def _applied(root: Tensor, e: Tensor, axis: int) -> Tensor:
    """A root, or the diagonal of one, on the first axis, or on the second of (outputs, inputs, taps)."""
    if root.ndim == 1:
        return e * root.reshape(-1, *[1] * (e.ndim - 1 - axis))
    return root @ e


def refined(
    fit: Fit[Any], weight: Tensor, layout: Layout, roots: Sequence[ModeRoot], pair: Pair, steps: int
) -> Fit[Any]:
    """The fit after at most `steps` of L-BFGS, with its relative error in the metric itself; never worse.

    `fit` is to `weight`, seen through `layout`, and was whitened with `roots`.
    """
    w = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    whole = weighted_square(outputs_first(w, layout), *pair).clamp_min(torch.finfo(w.dtype).tiny)
    start = rewhitened(fit.value.map(lambda f: f.to(w.dtype)), roots)
    leaves = [f.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for f in start.factors]

    def loss() -> Tensor:
        dense = unwhitened(_over(start, leaves), roots).dense()
        return weighted_square(outputs_first(layout.to_weight(dense) - w, layout), *pair) / whole

    with torch.enable_grad():
        before, after, count = _descend(leaves, loss, steps)
    if not after < before:
        return replace(fit, error=before**0.5)
    found = unwhitened(_over(start, [f.detach() for f in leaves]), roots)
    value = found.map(lambda f: f.to(weight.dtype))
    return replace(fit, value=value, error=after**0.5, steps=fit.steps + count)


def _over(value: Format, factors: Sequence[Tensor]) -> Format:
    feed = iter(factors)
    return value.map(lambda _: next(feed))


def _descend(leaves: Sequence[Tensor], loss: Callable[[], Tensor], steps: int) -> tuple[float, float, int]:
    """Run L-BFGS; the loss before and after, and how often it was taken."""
    stepper = torch.optim.LBFGS(
        leaves, max_iter=steps, history_size=HISTORY, line_search_fn="strong_wolfe", tolerance_change=1e-9
    )
    losses: list[float] = []

    def closure() -> Tensor:
        stepper.zero_grad()
        value = loss()
        value.backward()
        losses.append(float(value.detach()))
        return value

    stepper.step(closure)
    with torch.no_grad():
        return losses[0], float(loss()), len(losses)
