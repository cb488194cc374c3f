"""Transposed convolutions in the metric of the data: exact where taps do not overlap, else an improvement."""

import pytest
import torch
from torch import Tensor, nn

from tenfold import Budget, Lagrangian, collect, compress, find_sites
from tenfold.compress import DiagonalInput, Fisher, InputCovariance, KroneckerFisher, Metric, presets
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.fit import fitted, squared_loss
from tenfold.compress.presets import METHODS
from tenfold.core.errors import ShapeError
from tenfold.nn import FactorizedConvTranspose

WANT = InputCovariance.needs | KroneckerFisher.needs | DiagonalInput.needs | Fisher.needs


def correlated(*shape: int, seed: int = 0) -> Tensor:
    """Inputs whose channels (axis 1) have variances over two decades, in a random basis."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(
        torch.randn(shape[1], shape[1], generator=torch.Generator().manual_seed(9)).double()
    )[0]
    mixing = basis * torch.logspace(0, -2, shape[1], dtype=torch.float64)
    return torch.einsum("ij,bj...->bi...", mixing, x)


def network(groups: int = 1, kernel: int = 2, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(12, 16, kernel, stride=2, groups=groups, bias=bias)
    return nn.Sequential(layer).double().eval()


def statistics(net: nn.Module, x: Tensor, want: frozenset[str] = WANT) -> SiteStatistics:
    """The gradients are those of the squared error of the outputs."""
    return collect(net, [x], find_sites(net, x), want=want, loss="gaussian")["0.weight"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_where_taps_do_not_overlap_the_predicted_loss_is_the_squared_error(groups: int) -> None:
    """Σ over the outputs, a position of the input each; by the discarded singular values."""
    net, x = network(groups), correlated(6, 12, 5, 5)
    metric = InputCovariance(damping=0.0)
    site = statistics(net, x, InputCovariance.needs)
    layout = presets["weight_svd"](net[0], "0.weight").layout
    weight = net[0].weight.detach()
    fit = fitted(METHODS["lowrank"], weight, layout, 5, metric, site)
    change = layout.to_weight(fit.value.dense()) - weight
    lost = nn.functional.conv_transpose2d(x, change, stride=2, groups=groups).square().sum() / (6 * 25)
    assert squared_loss(fit.value, weight, layout, metric, site) == pytest.approx(float(lost))
    columns = x.movedim(1, 0).flatten(1)
    blocks = torch.block_diag(*[c @ c.T / c.shape[1] for c in columns.chunk(groups)])
    matrix = weight.flatten(1).T  # (outputs of a group, taps) × inputs of all groups
    tail = torch.linalg.svdvals(matrix @ torch.linalg.cholesky(blocks))[5:].square().sum()
    torch.testing.assert_close(lost, tail)


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_kfac_predicts_the_rise_of_a_squared_error(kernel: int) -> None:
    """½ E‖Δy‖² of a sample, by gradients drawn from its Gaussian; white inputs have nothing in common."""
    net = network(kernel=kernel)
    x = torch.randn(300, 12, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    site = statistics(net, x, KroneckerFisher.needs)
    layout, weight = presets["weight_svd"](net[0], "0.weight").layout, net[0].weight.detach()
    value = fitted(METHODS["lowrank"], weight, layout, 5).value
    change = layout.to_weight(value.dense()) - weight
    true = nn.functional.conv_transpose2d(x, change, stride=2).square().sum() / 300 / 2
    predicted = squared_loss(value, weight, layout, KroneckerFisher(damping=0.0), site) / 2
    assert predicted == pytest.approx(float(true), rel=0.05)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("preset", ["weight_svd", "channel_svd", "spatial_svd", "tucker2", "cp3"])
def test_the_metric_loses_less_than_truncation_on_other_data(preset: str, kernel: int, groups: int) -> None:
    net, x, other = network(groups, kernel), correlated(8, 12, 6, 6), correlated(8, 12, 6, 6, seed=3)
    lost = []
    for metric in (None, InputCovariance()):
        small = compress(net, Budget(params=0.4), example=x, preset=preset, metric=metric, data=[x]).model
        assert isinstance(small[0], FactorizedConvTranspose)
        lost.append(float((small(other) - net(other)).detach().square().mean()))
    assert lost[1] < 0.9 * lost[0]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("metric", [InputCovariance(), DiagonalInput(), Fisher(), KroneckerFisher()], ids=str)
@pytest.mark.parametrize("preset", ["weight_svd", "tucker", "tt_conv", "auto"])
def test_every_metric_runs_on_every_preset(preset: str, metric: Metric, groups: int) -> None:
    net, x = network(groups, 3), correlated(8, 12, 6, 6)
    found = collect(net, [x], find_sites(net, x), want=metric.needs, loss="gaussian")
    small = compress(
        net, Budget(params=0.5), example=x, preset=preset, metric=metric, statistics=found, rule=Lagrangian()
    )
    assert all(0 < fit.error < 1.2 for fit in small.fits) and set(small.plan.layers) == {"0"}


@pytest.mark.parametrize("groups", [1, 2])
def test_statistics_of_a_weight_of_another_shape_are_refused(groups: int) -> None:
    x, metric = correlated(4, 12, 5, 5), KroneckerFisher()
    other = nn.Sequential(nn.ConvTranspose2d(12, 9, 2, stride=2)).double()
    found = collect(other, [x], find_sites(other, x), want=metric.needs, loss="gaussian")
    with pytest.raises(ShapeError, match="but its weight has"):
        compress(
            network(groups),
            Budget(params=0.5),
            example=x,
            preset="weight_svd",
            metric=metric,
            statistics=found,
        )


def test_a_bias_is_not_moved() -> None:
    """The mean of an output depends on its place within the stride: no bias takes it up."""
    net, x = network(), correlated(8, 12, 6, 6) + 2
    small = compress(
        net, Budget(params=0.4), example=x, preset="weight_svd", metric=InputCovariance(), data=[x]
    )
    assert not small.plan.layers["0"]["weight"].metric.centred
    assert torch.equal(small.model[0].bias, net[0].bias)


def test_refinement_lowers_the_loss_that_it_reports() -> None:
    net, x, losses = network(kernel=3), correlated(8, 12, 6, 6), []
    site, weight = statistics(net, x), net[0].weight.detach()
    layout = presets["tt_conv"](net[0], "0.weight").layout
    for steps in (0, 50):
        metric = KroneckerFisher(refine=steps)
        value = fitted(METHODS["tt"], weight, layout, (6, 8), metric, site).value
        losses.append(squared_loss(value, weight, layout, metric, site))
    assert losses[1] < 0.95 * losses[0]


def test_a_decoder_is_compressed_as_a_whole() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(8, 3, 1),
    ).eval()  # fmt: skip
    x = torch.randn(16, 3, 12, 12)
    found = collect(net, [x], find_sites(net, x), want=KroneckerFisher.needs, loss="gaussian")
    small = compress(
        net, Budget(params=0.5), example=x, preset="auto", metric=KroneckerFisher(), statistics=found,
        rule=Lagrangian(), data=[x], correct=True,
    )  # fmt: skip
    assert {"2", "5"} <= set(small.plan.layers)
    with torch.no_grad():
        assert float((small.model(x) - net(x)).norm() / net(x).norm()) < 0.9
