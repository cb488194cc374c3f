"""Metrics: moments of modes, exactness where the theory says so, and what they gain on a trained network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tenfold import Budget, Lagrangian, Plan, apply_, collect, compress, find_sites, plan, tune
from tenfold.compress import DiagonalInput, Fisher, InputCovariance, KroneckerFisher, Metric, metrics
from tenfold.compress.fit import squared_loss
from tenfold.compress.moments import Moments, firsts, moment_of_mode
from tenfold.compress.shift import followed_by_norm, shift_of
from tenfold.core.errors import DataError
from tenfold.core.layout import Layout
from tenfold.data import digits
from tenfold.formats import LowRank
from tenfold.measure import accuracy
from tenfold.zoo import digits_cnn


def spd(n: int, seed: int) -> torch.Tensor:
    x = torch.randn(n, 2 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x @ x.T / n


def modes_of(text: str, shape: tuple[int, ...], moments: Moments) -> list[torch.Tensor | None]:
    layout = Layout.parse(text).bind(shape)
    return [moment_of_mode(group, layout, moments, first) for first, group in firsts(layout)]


SHAPE = (4, 3, 2, 2)


def test_modes_that_hold_all_inputs_have_the_whole_moment() -> None:
    g, p = spd(4, 0), spd(12, 1)
    out, inner = modes_of("o i h w -> o (i h w)", SHAPE, Moments(g, p))
    torch.testing.assert_close(out, g)
    torch.testing.assert_close(inner, p)


@pytest.mark.parametrize(
    "text", ["o i h w -> o i (h w)", "o i h w -> o i h w", "o i h w -> (i h) (o w)", "o i h w -> (o h w) i"]
)
def test_a_moment_that_is_a_product_is_recovered_in_every_layout(text: str) -> None:
    """For P = A ⊗ B ⊗ C over (i, h, w) the modes' moments multiply to G ⊗ P."""
    g, a, b, c = spd(4, 0), spd(3, 1), spd(2, 2), spd(2, 3)
    found = modes_of(text, SHAPE, Moments(g, torch.kron(torch.kron(a, b), c)))
    layout = Layout.parse(text).bind(SHAPE)
    whole = torch.ones(1, 1, dtype=torch.float64)
    for m in found:
        assert m is not None
        whole = torch.kron(whole, m)
    w = torch.randn(SHAPE, dtype=torch.float64)
    x = layout.to_modes(w).reshape(-1)
    expected = torch.einsum("oihw,op,ij,hk,wl,pjkl->", w, g, a, b, c, w)
    torch.testing.assert_close(x @ whole @ x, expected)


def test_a_moment_over_channels_alone_spreads_over_the_taps() -> None:
    a = spd(3, 1)
    (inner, out) = modes_of("o i h w -> (i h) (o w)", SHAPE, Moments(None, a))
    torch.testing.assert_close(inner, torch.kron(a, torch.eye(2, dtype=torch.float64)))
    assert out is None


def test_a_mode_with_a_part_of_the_channels_has_no_moment() -> None:
    found = modes_of(
        "(o0=2 o1=2) (i0=3 i1) h w -> (h w) (o0 i0) (o1 i1)", (4, 3, 2, 2), Moments(spd(4, 0), spd(3, 1))
    )
    assert found == [None, None, None]


def test_a_normalisation_behind_a_layer_is_seen() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
    )
    assert followed_by_norm(net, torch.zeros(1, 1, 8, 8)) == {"3": "4"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Fork(nn.Module):
    """Two layers in front of a normalisation each, of which others read the first one's output, too."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.other, self.last = (nn.BatchNorm1d(4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        y = self.first(x)
        z = self.norm(y)
        if self.way == "norm":
            z = z + self.other(y)
        if self.way == "sum":
            z = z + y
        z = self.last(self.second(z))
        return (z, y) if self.way == "output" else z


@pytest.mark.parametrize("way", ["norm", "sum", "output"])
def test_a_normalisation_that_is_not_alone_behind_a_layer_does_not_count(way: str) -> None:
    assert followed_by_norm(Fork("alone"), torch.zeros(2, 4)) == {"first": "norm", "second": "last"}
    assert followed_by_norm(Fork(way), torch.zeros(2, 4)) == {"second": "last"}


def test_shift_is_the_change_of_the_mean_output() -> None:
    x = torch.randn(50, 3, 5, 5, dtype=torch.float64) + 1
    w = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    patches = nn.functional.unfold(x, 2).transpose(1, 2).reshape(-1, 12)
    expected = nn.functional.conv2d(x, w).mean((0, 2, 3))
    torch.testing.assert_close(shift_of(w, patches.mean(0)), expected)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list, list]:
    torch.manual_seed(0)
    train, test = digits()
    train = train.normalized()
    test = test.normalized(train.mean, train.std)
    net = digits_cnn()
    tune(net, train.batches(64, shuffle=True, generator=torch.Generator().manual_seed(0)), epochs=2)
    return net.eval(), list(train.batches(100)), list(test.batches(400))


def output_error(small: nn.Module, net: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((small(x) - net(x)).norm() / net(x).norm())


def test_input_covariance_is_the_optimum_for_the_layer_outputs() -> None:
    """Eckart and Young on W C^(1/2), with the bias that takes up the mean (Zhang et al. 2015, eq. 5)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 24)).double()
    basis = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]
    x = (torch.randn(400, 20, dtype=torch.float64) * torch.logspace(0, -2, 20)) @ basis.T + 3
    metric = InputCovariance(damping=1e-12)
    small = compress(net, Budget(params=0.3), example=x, preset="weight_svd", metric=metric, data=[x]).model
    rank = small[0].weight.ranks["R"]
    y = net(x)
    tail = torch.linalg.svdvals(y - y.mean(0))[rank:]
    torch.testing.assert_close((small(x) - y).norm(), tail.norm(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("preset", ["channel_svd", "spatial_svd", "tucker2", "cp3"])
def test_two_sided_weights_with_global_ranks_lose_far_less(trained: tuple, preset: str) -> None:
    net, seen, test = trained
    x = seen[0][0]
    options = {"example": x, "preset": preset, "select": {"Linear": None}}
    plain = compress(net, Budget(params=0.3), **options).model
    aware = compress(
        net, Budget(params=0.3), **options, metric=KroneckerFisher(), data=seen, rule=Lagrangian()
    ).model
    lost = [accuracy(net, test) - accuracy(model, test) for model in (plain, aware)]
    assert lost[0] > 0.03
    assert lost[1] <= lost[0] / 6


@pytest.mark.parametrize("metric", [InputCovariance(), DiagonalInput(), Fisher(), KroneckerFisher()], ids=str)
def test_every_metric_runs_on_every_preset_and_survives_json(trained: tuple, metric: Metric) -> None:
    net, seen, _ = trained
    x = seen[0][0][:8]
    statistics = collect(net, seen[:2], find_sites(net, x), want=metric.needs)
    for preset in ("weight_svd", "tucker", "tt_conv"):
        chosen = plan(net, Budget(params=0.4), example=x, preset=preset, metric=metric, statistics=statistics)
        assert Plan.from_json(chosen.to_json()) == chosen
        fits = apply_(copy.deepcopy(net), chosen, statistics=statistics)
        assert all(0 < fit.error < 1.5 and np.isfinite(fit.error) for fit in fits)


def test_a_metric_without_statistics_is_an_error(trained: tuple) -> None:
    net, seen, _ = trained
    x = seen[0][0][:4]
    with pytest.raises(DataError, match="needs statistics"):
        plan(net, Budget(params=0.4), example=x, metric=KroneckerFisher())
    statistics = collect(net, seen[:1], find_sites(net, x), want=KroneckerFisher().needs)
    chosen = plan(net, Budget(params=0.4), example=x, metric=KroneckerFisher(), statistics=statistics)
    small = copy.deepcopy(net)
    with pytest.raises(DataError, match="no statistics of it were given"):
        apply_(small, chosen)


def test_metrics_are_registered() -> None:
    assert set(metrics) == {"diagonal_input", "fisher", "input_covariance", "kronecker_fisher"}


def test_data_that_can_be_read_once_only_are_refused(trained: tuple) -> None:
    net, seen, _ = trained
    with pytest.raises(DataError, match="read several times"):
        compress(net, Budget(params=0.4), example=seen[0][0][:4], metric=KroneckerFisher(), data=iter(seen))


def test_a_weight_of_two_layers_with_means_of_their_own_is_not_centred() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    net[2].weight = net[0].weight
    data = [torch.randn(64, 16) + 5.0 for _ in range(4)]
    small, found, _ = compress(
        net, Budget(params=0.5), example=data[0], preset="weight_svd", metric=InputCovariance(), data=data
    )
    assert not found.layers["0"]["weight"].metric.centred and found.layers["4"]["weight"].metric.centred  # type: ignore[union-attr]
    with torch.no_grad():
        x, y = torch.cat(data), net[:2](torch.cat(data))
        for k, given in ((0, x), (2, y)):
            assert (small[k](given) - net[k](given)).norm() < 0.4 * net[k](given).norm()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_summed_in_single(kind: torch.dtype) -> None:
    weight = (2e-4 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).to(kind)
    layout = Layout.parse("o i -> o i").bind((64, 64))
    value = LowRank.random((64, 64), 1, like=weight).map(torch.zeros_like)
    assert squared_loss(value, weight, layout) == pytest.approx(
        float(weight.double().square().sum()), rel=1e-4
    )
