"""Refinement in the metric itself, where whitening is approximate."""

import pytest
import torch
from torch import nn

from tenfold import Budget, apply_, collect, find_sites, plan
from tenfold.compress import InputCovariance, KroneckerFisher
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.fit import fitted, squared_loss
from tenfold.core.errors import OptionError
from tenfold.core.layout import Layout
from tenfold.decompose import CPALS, HOOI, TTSVD, Method, TruncatedSVD

CASES = [
    pytest.param(HOOI(), "o i h w -> o i (h w)", (4, 3, None), id="tucker2"),
    pytest.param(CPALS(max_steps=50), "o i h w -> o i (h w)", 6, id="cp"),
    pytest.param(TruncatedSVD(), "o i h w -> (i h) (o w)", 5, id="spatial"),
    pytest.param(TTSVD(), "(o0 o1) (i0 i1) h w -> (h w) (o0 i0) (o1 i1)", (4, 5), id="tt"),
]


def spd(n: int, seed: int) -> torch.Tensor:
    """A moment with eigenvalues over three decades."""
    q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed)))[0]
    return q * torch.logspace(0, -3, n) @ q.T


def seen() -> SiteStatistics:
    return SiteStatistics(
        1000, patch_moment=spd(54, 0), patch_mean=torch.zeros(54), gradient_covariance=spd(8, 1)
    )


def bound(text: str) -> Layout:
    layout = Layout.parse(text)
    sizes = {"o0": 4, "o1": 2, "i0": 2, "i1": 3}
    return Layout(layout.weight, layout.modes, tuple((a, n) for a, n in sizes.items() if a in text)).bind(
        (8, 6, 3, 3)
    )


@pytest.mark.parametrize(("method", "text", "ranks"), CASES)
def test_refinement_lowers_the_loss_that_it_reports(method: Method, text: str, ranks: object) -> None:
    weight = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(2))
    layout, whole = bound(text), None
    losses = {}
    for steps in (0, 50):
        metric = KroneckerFisher(refine=steps)
        fit = fitted(method, weight, layout, ranks, metric, seen())
        losses[steps] = squared_loss(fit.value, weight, layout, metric, seen())
    whole = squared_loss(fit.value.map(torch.zeros_like), weight, layout, metric, seen())
    assert losses[50] < 0.95 * losses[0]
    assert fit.error == pytest.approx((losses[50] / whole) ** 0.5, rel=1e-3)


def test_what_whitening_solves_exactly_is_not_refined() -> None:
    weight = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(3))
    layout = Layout.parse("o i h w -> o (i h w)").bind((8, 6, 3, 3))
    plain, more = (
        fitted(TruncatedSVD(), weight, layout, 3, InputCovariance(refine=steps), seen()) for steps in (0, 50)
    )
    assert more.steps == plain.steps
    torch.testing.assert_close(more.value.dense(), plain.value.dense())


def test_refined_layers_keep_their_type_and_their_plan() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3)).to(torch.bfloat16)
    x = torch.randn(8, 4, 9, 9, dtype=torch.bfloat16)
    stats = collect(net, [x], find_sites(net, x), want=InputCovariance.needs)
    found = plan(net, Budget(params=0.5), example=x, metric=InputCovariance(refine=5), statistics=stats)
    fits = apply_(net, found, statistics=stats)
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
    assert all(0 < fit.error < 1 for fit in fits)


@pytest.mark.parametrize("options", [{"refine": -1}, {"damping": -1e-3}])
def test_options_below_zero_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="damping and refine came as"):
        KroneckerFisher(**options)  # type: ignore[arg-type]
