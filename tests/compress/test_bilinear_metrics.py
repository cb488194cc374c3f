"""Bilinear layers: statistics by their formulas, and fits in the metric of both inputs."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold import Budget, Plan, apply_, collect, compress, find_sites
from tenfold.compress import DiagonalInput, Fisher, InputCovariance, KroneckerFisher, LayerPlan, Metric
from tenfold.compress.calibration.observers import observers
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.fit import fitted, squared_loss
from tenfold.compress.presets import METHODS
from tenfold.core.layout import Layout
from tenfold.decompose import TruncatedSVD
from tenfold.formats import formats
from tenfold.nn import FactorizedBilinear

ALL = frozenset(observers)
SHAPE = (7, 5, 4)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.both, self.head = nn.Bilinear(*SHAPE[1:], SHAPE[0]), nn.Linear(SHAPE[0], 3)
        self.double()

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        rows = self.both(x, z).tanh()
        return self.head(rows if rows.ndim == 2 else rows.flatten(1, -2).mean(1))


def inputs(*lead: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two inputs that have much in common, of uneven variances."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*lead, SHAPE[1], generator=generator, dtype=torch.float64) + 0.2
    z = torch.randn(*lead, SHAPE[2], generator=generator, dtype=torch.float64) * torch.logspace(
        0, -1, SHAPE[2]
    )
    return x * torch.logspace(0, -2, SHAPE[1]), z + 0.5 * x[..., : SHAPE[2]]


def seen(model: nn.Module, batches: Any, want: Any = ALL, **options: Any) -> SiteStatistics:
    return collect(model, batches, find_sites(model, inputs(2)), want=want, **options)["both.weight"]


@pytest.mark.parametrize("lead", [(9,), (9, 3), (9, 2, 3)], ids=str)
@pytest.mark.parametrize("max_bytes", [1, 2**28])
def test_statistics_are_those_of_their_formulas(lead: tuple[int, ...], max_bytes: int) -> None:
    model, (x, z), labels = Pooled(), inputs(*lead), torch.arange(9) % 3
    found = seen(model, [((x, z), labels)], max_bytes=max_bytes)
    p = torch.einsum("...i,...j->...ij", x, z).reshape(-1, 20)
    rows = x.reshape(-1, 5)
    assert found.count == found.output_count == len(rows)
    torch.testing.assert_close(found.input_covariance, rows.T @ rows / len(rows))
    torch.testing.assert_close(found.patch_mean, p.mean(0))
    torch.testing.assert_close(found.patch_moment, p.T @ p / len(p))
    by_output, by_weight = [], []
    for k in range(9):
        kept: list[Tensor] = []
        handle = model.both.register_forward_hook(lambda m, a, y, kept=kept: kept.append(y))
        loss = F.cross_entropy(model(x[k : k + 1], z[k : k + 1]), labels[k : k + 1])
        handle.remove()
        g, w = torch.autograd.grad(loss, [kept[0], model.both.weight])
        by_output.append(g.reshape(-1, 7))
        by_weight.append(w)
    g, squared = torch.cat(by_output), torch.stack(by_weight).square().mean(0)
    torch.testing.assert_close(found.gradient_covariance, g.T @ g / 9)
    torch.testing.assert_close(found.fisher_rows, squared.sum((1, 2)))
    torch.testing.assert_close(found.fisher_columns, squared.sum(0).flatten())


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_predicted_loss_is_the_squared_error_of_the_outputs(rank: int) -> None:
    model, (x, z) = Pooled(), inputs(300)
    metric = InputCovariance(damping=0.0)
    site = seen(model, [((x, z), None)], InputCovariance.needs)
    layout = Layout.parse("o i0 i1 -> o (i0 i1)").bind(SHAPE)
    weight = model.both.weight.detach()
    value = fitted(TruncatedSVD(), weight, layout, rank, metric, site).value
    change = layout.to_weight(value.dense()) - weight
    lost = F.bilinear(x, z, change).square().sum(1).mean()
    assert squared_loss(value, weight, layout, metric, site) == pytest.approx(float(lost))
    products = torch.einsum("ni,nj->nij", x, z).flatten(1)
    tail = torch.linalg.svdvals(products @ weight.flatten(1).T)[rank:].square().sum() / 300
    torch.testing.assert_close(lost, tail)


LAYOUTS = {"lowrank": "o i0 i1 -> (o i0) i1", "cp": "o i0 i1 -> o i0 i1", "tucker": "o i0 i1 -> o i0 i1"}


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("max_patch", [2048, 10])
def test_the_metric_loses_less_on_other_data(kind: str, max_patch: int) -> None:
    """Also with the moment of the first input alone, where the products are too many."""
    model, (x, z), other = Pooled(), inputs(400), inputs(400, seed=5)
    layout = Layout.parse(LAYOUTS[kind]).bind(SHAPE)
    site = seen(model, [((x, z), None)], InputCovariance.needs, max_patch=max_patch)
    assert (site.patch_moment is None) == (max_patch == 10)
    weight, lost = model.both.weight.detach(), []
    ranks = formats[kind].ranks_within(layout.mode_shape, 70)
    for metric in (None, InputCovariance()):
        value = fitted(METHODS[kind], weight, layout, ranks, metric, site).value
        change = layout.to_weight(value.dense()) - weight
        lost.append(float(F.bilinear(*other, change).square().mean()))
    assert lost[1] < 0.9 * lost[0]


@pytest.mark.parametrize("metric", [InputCovariance(), DiagonalInput(), Fisher(), KroneckerFisher()], ids=str)
def test_a_plan_in_a_metric_is_carried_out(metric: Metric) -> None:
    model, given = Pooled(), inputs(60)
    statistics = collect(model, [(given, None)], find_sites(model, given), want=metric.needs)
    layer = LayerPlan("cp", "o i0 i1 -> o i0 i1", {"R": 4}, metric=metric, example=(60, 5))
    small = copy.deepcopy(model)
    (fit,) = apply_(small, Plan({"both": {"weight": layer}}), statistics=statistics)
    assert 0 < fit.error < 1.5 and torch.equal(small.both.bias, model.both.bias)
    assert small(*given).shape == (60, 3)


@pytest.mark.parametrize("preset", ["weight_svd", "cp3", "tucker", "auto"])
@pytest.mark.parametrize("metric", [None, InputCovariance()], ids=str)
def test_presets_compress_a_bilinear_layer(preset: str, metric: Metric | None) -> None:
    model, given = Pooled(), inputs(60)
    done = compress(
        model, Budget(params=0.5), example=given, preset=None, select={"both": preset}, metric=metric,
        data=None if metric is None else [(given, None)],
    )  # fmt: skip
    layer = done.model.both
    assert isinstance(layer, FactorizedBilinear) and layer.weight.numel() <= 0.5 * model.both.weight.numel()
    torch.testing.assert_close(layer(*given), layer.to_dense()(*given))
