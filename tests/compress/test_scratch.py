"""From scratch: fresh factors of the right scale, in every format, that learn."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from tenfold import Budget, Plan, plan
from tenfold.compress import presets
from tenfold.compress.plan import LayerPlan
from tenfold.compress.recovery.tune import tune
from tenfold.compress.scratch import apply_fresh_, usual
from tenfold.core.errors import ModelError, SelectionError, UnsupportedError, WeightError
from tenfold.data import digits
from tenfold.measure import accuracy
from tenfold.nn import FactorizedConv, FactorizedLayer
from tenfold.zoo import digits_cnn

X = torch.zeros(2, 12, 12, 12)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(12, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 24, 3, groups=2, bias=False),
        nn.Conv2d(24, 32, 1),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 64, 32))


@pytest.mark.parametrize("preset", list(presets))
def test_shapes_and_deviations_are_those_of_the_dense_initialisation(preset: str) -> None:
    model = net()
    nn.init.normal_(model[0].weight, std=0.3)
    dense = deepcopy(model)
    chosen = plan(model, Budget(params=0.4), example=X, preset=preset)
    fits = apply_fresh_(model, chosen)
    assert {fit.name for fit in fits} == {f"{name}.weight" for name in chosen.layers} != set()
    for name, layers in chosen.layers.items():
        layer, weight = model.get_submodule(name), dense.get_submodule(name).weight
        assert isinstance(layer, FactorizedLayer)
        assert layer.weight.ranks == layers["weight"].ranks and layer.weight.shape == weight.shape
        made = layer.weight.dense().detach()
        torch.testing.assert_close(made.std(correction=0), weight.std(correction=0))
        assert made.mean().abs() < 0.5 * made.std()
        correlation = (made * weight).sum() / (made.norm() * weight.norm())
        assert correlation.abs() < 0.3, "it is not a fit"
    assert model(X).shape == (2, 32)


def test_the_same_seed_gives_the_same_factors_and_layers_differ() -> None:
    def made(seed: int) -> list[torch.Tensor]:
        model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
        chosen = plan(model, Budget(params=0.5), example=torch.zeros(1, 16), preset="weight_svd")
        apply_fresh_(model, chosen, seed=seed)
        return [layer.weight.dense() / layer.weight.dense().std() for layer in model]

    first, again, other = made(0), made(0), made(9)
    assert torch.allclose(first[0], again[0], atol=1e-4)
    assert not torch.allclose(first[0], first[1], atol=0.1) and not torch.allclose(
        first[0], other[0], atol=0.1
    )


def test_biases_and_flags_stay_and_factors_train() -> None:
    model = net()
    bias = model[0].bias.detach().clone()
    model[3].weight.requires_grad_(False)
    apply_fresh_(model, plan(model, Budget(params=0.4), example=X, preset="tucker2"))
    assert isinstance(model[0], FactorizedConv) and torch.equal(model[0].bias, bias)
    assert not model[3].weight.requires_grad and model[0].weight.requires_grad
    model(torch.randn_like(X)).sum().backward()
    assert all(f.grad is not None and f.grad.any() for f in model[0].weight.factors())


@pytest.mark.parametrize("preset", ["weight_svd", "tt_matrix"])
def test_a_weight_of_zeros_stays_zero_and_still_learns(preset: str) -> None:
    model = nn.Sequential(nn.Linear(16, 16, bias=False))
    nn.init.zeros_(model[0].weight)
    chosen = plan(model, Budget(params=0.6), example=torch.zeros(1, 16), preset=preset)
    apply_fresh_(model, chosen)
    assert not model[0].weight.dense().any()
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    tuned = tune(model, [(x, x[:, :4].argmax(1))], epochs=60, lr=0.05)
    assert tuned.trace[-1].train_loss < 0.5 * tuned.trace[0].train_loss


def test_layers_in_half_precision_get_their_scale_too() -> None:
    model = nn.Sequential(nn.Linear(64, 64)).bfloat16()
    before = model[0].weight.float().std().item()
    layer = LayerPlan("lowrank", "o i -> o i", {"R": 16})
    apply_fresh_(model, Plan({"0": {"weight": layer}}))
    assert model[0].weight.dtype == torch.bfloat16
    assert model[0].weight.dense().float().std().item() == pytest.approx(before, rel=0.02)


def test_layers_that_share_a_weight_share_the_factors() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    model[1].weight = model[0].weight
    chosen = plan(model, Budget(params=0.5), example=torch.zeros(1, 16), preset="weight_svd")
    apply_fresh_(model, chosen)
    assert model[0].weight is model[1].weight
    assert model[0].weight.dense().std().item() == pytest.approx(usual((16, 16)), rel=0.1)


def test_a_network_learns_the_digits_with_three_tenths_of_its_weights() -> None:
    train, test = digits()
    train = train.normalized()
    torch.manual_seed(0)
    model = digits_cnn()
    chosen = plan(model, Budget(params=0.3), example=torch.zeros(1, 1, 8, 8), preset="tucker2")
    apply_fresh_(model, chosen)
    batches = train.batches(64, shuffle=True, generator=torch.Generator().manual_seed(0))
    tune(model, batches, epochs=2, lr=3e-3, schedule="cosine")
    assert accuracy(model, test.normalized(train.mean, train.std).batches(512)) > 0.9


def test_plans_that_do_not_fit_change_nothing() -> None:
    layer = {"weight": LayerPlan("lowrank", "o i -> o i", {"R": 2})}
    model = nn.Sequential(nn.Linear(4, 4), nn.PReLU(4))
    with pytest.raises(SelectionError, match=r"the plan names '2\.weight', which the model has not"):
        apply_fresh_(model, Plan({"0": layer, "2": layer}))
    with pytest.raises(UnsupportedError, match="no factorized layer for PReLU"):
        apply_fresh_(model, Plan({"0": layer, "1": layer}))
    with pytest.raises(ModelError, match=r"'0\.weight' is on the meta device"):
        apply_fresh_(nn.Sequential(nn.Linear(4, 4, device="meta")), Plan({"0": layer}))
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_is_not_finite_is_refused_and_stays(bad: float, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)).to(dtype)
    model[1].weight.data[3, 4] = bad
    layer = {"weight": LayerPlan("lowrank", "o i -> o i", {"R": 4})}
    with pytest.raises(WeightError, match=r"'1\.weight' has 1 entry of 256 that is NaN or infinite"):
        apply_fresh_(model, Plan({"0": layer, "1": layer}))
    assert type(model[0]) is nn.Linear
