"""Identities of the literature, on what calibration collects: where K-FAC is exact, it is the loss itself."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress import (
    InputCovariance,
    KroneckerFisher,
    SiteStatistics,
    collect,
    compress,
    find_sites,
    plan,
)
from tenfold.ranks import EVBMF, Budget

WANT = {"input_covariance", "patch_moment", "output_covariance", "gradient_covariance", "fisher_rows"}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def curvature(n: int) -> Tensor:
    """A Hessian of the loss by the outputs."""
    x = normal(n, 3 * n, seed=9) * torch.logspace(0, -1, n, dtype=torch.float64)[:, None]
    return x @ x.T / n


def rise(g: Tensor, p: Tensor, change: Tensor) -> Tensor:
    """½ tr(G ΔW P ΔWᵀ)."""
    e = change.flatten(1)
    return 0.5 * torch.trace(g @ e @ p @ e.T)


def quadratic(hessian: Tensor) -> Any:
    """½ Σ (y - t)ᵀ A (y - t) over samples and positions; outputs along axis 1."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        e = (outputs - targets).movedim(1, -1).flatten(0, -2)
        return 0.5 * ((e @ hessian) * e).sum()

    return loss


def crossed(layer: nn.Module, x: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets in which every input meets every residual: gradients do not depend on inputs.

    The residuals ±√o L⁻ᵀ e_k, L Lᵀ = A, have mean 0 and moment A⁻¹, which is how targets scatter if the loss
    is their negative log-likelihood; so the gradients A r have moment A, and the weight is at its optimum.
    """
    o = len(hessian)
    half = torch.linalg.inv(torch.linalg.cholesky(hessian)).T * o**0.5
    residuals = torch.cat([half, -half], dim=1).T
    inputs = x.repeat_interleave(2 * o, 0)
    outputs = layer(inputs).detach()
    return inputs, outputs - residuals.repeat(len(x), 1).reshape(-1, o, *[1] * (outputs.ndim - 2))


def seen(model: nn.Module, batch: Any, loss: Any = None, want: Any = WANT) -> SiteStatistics:
    example = batch[0] if isinstance(batch, tuple) else batch
    return collect(model, [batch], find_sites(model, example), want=want, loss=loss)["0.weight"]


def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor], loss: Any) -> Tensor:
    with torch.no_grad():
        return loss(model(batch[0]), batch[1]) / len(batch[0])


def moved(model: nn.Module, change: Tensor) -> nn.Module:
    model = copy.deepcopy(model)
    with torch.no_grad():
        model[0].weight.add_(change)
    return model


# K-FAC ---------------------------------------------------------------------------------------------------


def linear_problem() -> tuple[nn.Module, tuple[Tensor, Tensor], Any]:
    torch.manual_seed(0)
    model, hessian = nn.Sequential(nn.Linear(7, 5, bias=False)).double(), curvature(5)
    x = normal(40, 7) @ normal(7, 7, seed=1) + 0.5
    return model, crossed(model, x, hessian), quadratic(hessian)


def test_the_gradient_covariance_is_the_hessian_where_the_targets_follow_the_loss() -> None:
    model, batch, loss = linear_problem()
    torch.testing.assert_close(seen(model, batch, loss).gradient_covariance, curvature(5))


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_kfac_is_the_rise_of_the_loss_where_gradients_do_not_depend_on_inputs(size: float) -> None:
    """Martens & Grosse 2015: the Fisher is then G ⊗ P. A quadratic loss is so for changes of any size."""
    model, batch, loss = linear_problem()
    found, change = seen(model, batch, loss), size * normal(5, 7, seed=3)
    true = mean_loss(moved(model, change), batch, loss) - mean_loss(model, batch, loss)
    torch.testing.assert_close(rise(found.gradient_covariance, found.patch_moment, change), true)


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"stride": (2, 1), "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "circular": {"padding": 1, "padding_mode": "circular"},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_kfac_of_a_convolution_sums_over_positions_once(name: str) -> None:
    """Grosse & Martens 2016; the sum is in the factor of the gradients, the mean in that of the patches."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False, **CONVOLUTIONS[name])).double()
    loss, x = quadratic(curvature(4)), normal(6, 3, 6, 7) + 0.5
    batch = crossed(model, x, curvature(4))
    found, change = seen(model, batch, loss), normal(4, 3, 3, 3, seed=3)
    positions = model(x)[0, 0].numel()
    torch.testing.assert_close(found.gradient_covariance, positions * curvature(4))
    true = mean_loss(moved(model, change), batch, loss) - mean_loss(model, batch, loss)
    torch.testing.assert_close(rise(found.gradient_covariance, found.patch_moment, change), true)


def softmax_problem(one_input: bool) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Logits log p for every sample, and labels exactly as often as p = (1/2, 1/4, 1/8, 1/8) says."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4)).double()
    x = normal(1 if one_input else 12, 5)
    p = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    with torch.no_grad():
        model[0].weight.mul_(float(one_input))
        model[0].bias.copy_(p.log() - model[0].weight @ x[0])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
    return model, (x.repeat_interleave(8, 0), labels.repeat(len(x)))


@pytest.mark.parametrize("one_input", [True, False])
def test_kfac_of_a_softmax_is_its_hessian_for_one_input_and_for_one_prediction(one_input: bool) -> None:
    """Both are (diag(p) - p pᵀ) ⊗ x xᵀ, whose mean is a Kronecker product if p is the same for all x."""
    model, batch = softmax_problem(one_input)
    found, change = seen(model, batch), normal(4, 5, seed=3)

    def loss(weight: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(batch[0], weight, model[0].bias), batch[1])

    weight = model[0].weight.detach()
    _, product = torch.autograd.functional.hvp(loss, weight, change)
    torch.testing.assert_close(
        rise(found.gradient_covariance, found.patch_moment, change), 0.5 * (product * change).sum()
    )
    p = F.softmax(model(batch[0][:1]), -1)[0].detach()
    torch.testing.assert_close(found.gradient_covariance, torch.diag(p) - p[:, None] * p)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_the_predicted_loss_of_a_compressed_layer_is_its_true_loss(keep: float) -> None:
    """½ Σ σ² over the discarded singular values of G^½ W P^½."""
    torch.manual_seed(0)
    model, hessian = nn.Sequential(nn.Linear(24, 16, bias=False)).double(), curvature(16)
    batch, loss = crossed(model, normal(60, 24) @ normal(24, 24, seed=1), hessian), quadratic(hessian)
    sites = find_sites(model, batch[0])
    statistics = collect(model, [batch], sites, want=KroneckerFisher.needs, loss=loss)
    small = compress(
        model, Budget(params=keep), example=batch[0], preset="weight_svd",
        metric=KroneckerFisher(damping=0.0), statistics=statistics,
    ).model  # fmt: skip
    g, p = statistics["0.weight"].gradient_covariance, statistics["0.weight"].patch_moment
    seen_weight = torch.linalg.cholesky(g).T @ model[0].weight.detach() @ torch.linalg.cholesky(p)
    tail = torch.linalg.svdvals(seen_weight)[small[0].weight.ranks["R"] :]
    true = mean_loss(small, batch, loss) - mean_loss(model, batch, loss)
    torch.testing.assert_close(true, 0.5 * tail.square().sum(), rtol=1e-6, atol=0)


# Traces --------------------------------------------------------------------------------------------------


def test_fisher_rows_and_columns_are_the_diagonals_of_kfac_where_it_is_exact() -> None:
    """The diagonal of G ⊗ P, summed over columns and over rows."""
    model, batch, loss = linear_problem()
    found = seen(model, batch, loss)
    g, p = found.gradient_covariance, found.patch_moment
    torch.testing.assert_close(found.fisher_rows, g.diagonal() * torch.trace(p))
    torch.testing.assert_close(found.fisher_columns, p.diagonal() * torch.trace(g))


def test_fisher_rows_and_columns_have_the_same_sum_whatever_the_gradients() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(80, 5)).double()
    found = collect(model, [normal(7, 3, 6, 7)], find_sites(model, normal(1, 3, 6, 7)), want="fisher_rows")
    for site in found.values():
        torch.testing.assert_close(site.fisher_rows.sum(), site.fisher_columns.sum())


@pytest.mark.parametrize("name", ["plain", "strided", "dilated"])
def test_patch_moments_are_those_of_torchs_unfold(name: str) -> None:
    options = CONVOLUTIONS[name]
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, **options)).double(), normal(6, 3, 8, 7) + 0.5
    patches = F.unfold(x, 3, **options).movedim(1, 0).flatten(1)
    found = seen(model, x, want="patch_moment")
    torch.testing.assert_close(found.patch_moment, patches @ patches.T / patches.shape[1])
    torch.testing.assert_close(found.patch_mean, patches.mean(1))


def test_every_tap_of_a_circular_convolution_sees_the_moment_of_the_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")).double()
    x = normal(6, 3, 5, 6)
    found = seen(model, x, want={"input_covariance", "patch_moment"})
    by_tap = found.patch_moment.reshape(3, 9, 3, 9)
    for tap in range(9):
        torch.testing.assert_close(by_tap[:, tap, :, tap], found.input_covariance)
    assert math.isclose(torch.trace(found.patch_moment), 9 * torch.trace(found.input_covariance))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_covariance_of_the_outputs_is_that_of_the_patches_through_the_weight(name: str) -> None:
    """Whatever the bias; so PCA of the outputs needs no moment of the patches."""
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, **CONVOLUTIONS[name])).double(), normal(6, 3, 6, 7) + 1
    found, w = seen(model, x, want=WANT - {"gradient_covariance", "fisher_rows"}), model[0].weight.detach()
    w = w.flatten(1)
    torch.testing.assert_close(found.output_centred, w @ found.patch_centred @ w.T)
    torch.testing.assert_close(found.output_mean, w @ found.patch_mean + model[0].bias.detach())


# Output PCA ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["many", "few"])
def test_a_compressed_convolution_loses_the_discarded_variance_of_its_outputs(positions: str) -> None:
    """Zhang et al. 2015, eq. 5: PCA of the outputs, with a bias; also if the patches' moment is singular."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 12, 3)).double()
    x = normal(30, 8, 9, 9) if positions == "many" else normal(2, 8, 6, 6)
    metric = InputCovariance(damping=0.0)
    small = compress(
        model, Budget(params=0.5), example=x, preset="channel_svd", metric=metric, data=[x]
    ).model
    with torch.no_grad():
        y = model(x).movedim(1, 0).flatten(1)
        lost = small(x).movedim(1, 0).flatten(1) - y
    values = torch.linalg.eigvalsh(torch.cov(y, correction=0)).flip(0)[small[0].weight.ranks["R"] :]
    torch.testing.assert_close(lost.square().sum() / y.shape[1], values.sum(), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(lost.mean(1), torch.zeros(12, dtype=torch.float64), rtol=0, atol=1e-10)


# EVBMF ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outputs", "inputs"), [(3, 5), (3, 9), (12, 5), (12, 9)])
def test_the_ranks_that_are_planted_in_both_channel_modes_of_a_kernel_are_found(
    outputs: int, inputs: int
) -> None:
    """Kim et al. 2016: Tucker-2 with the analytic ranks of the unfoldings."""
    net = nn.Sequential(nn.Conv2d(48, 64, 3, padding=1)).double()
    core, u, v = normal(outputs, inputs, 9), normal(64, outputs, seed=1), normal(48, inputs, seed=2)
    kernel = torch.einsum("pqt,op,iq->oit", core, u, v) / (outputs * inputs) ** 0.5
    with torch.no_grad():
        net[0].weight.copy_((kernel + 0.1 * normal(64, 48, 9, seed=3)).reshape(64, 48, 3, 3))
    chosen = plan(net, None, example=normal(1, 48, 4, 4), preset="tucker2", rule=EVBMF(weakening=1.0))
    assert chosen.layers["0"]["weight"].ranks == {"R0": outputs, "R1": inputs}
