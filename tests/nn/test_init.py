"""Initialisation in place: the weight that the factors make has the mean and the deviation asked for."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.formats import CP, BlockTerm, Format, HierarchicalTucker, TensorTrain, Tucker, formats
from tenfold.nn import (
    FactorizedConv,
    FactorizedEmbedding,
    FactorizedLinear,
    FactorizedTensor,
    GatedTensor,
    TensorizedTensor,
    init,
    moments,
)
from tenfold.nn.bonds.gates import put_gates
from tenfold.nn.moments import scaled_to
from tenfold.testing.samples import whole_modes

SHAPES = {2: (12, 10), 3: (8, 6, 5), 4: (4, 6, 3, 5), 5: (3, 2, 4, 2, 3)}
EXACT = 1e-9
MOMENTS = [(0.0, 0.1), (0.0, 3.0), (1.0, 0.5), (-0.3, 0.01), (2.0, 3.0)]


def values(name: str, dtype: torch.dtype = torch.float64) -> list[Format]:
    """Tensors of a format: all orders, low ranks and higher ones, modes whole."""
    kind, made = formats[name], []
    like = torch.zeros((), dtype=dtype)
    for shape in SHAPES.values():
        try:
            kind.skeleton(shape, 1)
        except ShapeError:
            continue
        made += [kind.random(shape, r, like=like) for r in (1, 3)]
        made += [kind.random(shape, r, like=like) for r in list(whole_modes(kind, shape))[:1]]
    return made


def deviation(x: Tensor) -> float:
    x = x.detach()
    return float((x - x.mean()).abs().square().mean().sqrt())


@pytest.mark.parametrize("name", formats)
@pytest.mark.parametrize("mean, std", MOMENTS)
def test_the_weight_has_the_mean_and_the_deviation(name: str, mean: float, std: float) -> None:
    torch.manual_seed(0)
    for value in values(name):
        x = FactorizedTensor(value)
        for draw in (init.normal_, init.uniform_):
            bounds = (mean - math.sqrt(3) * std, mean + math.sqrt(3) * std)
            given = (mean, std) if draw is init.normal_ else bounds
            assert draw(x, *given) is x
            assert deviation(x.dense()) == pytest.approx(std, rel=EXACT)
            if mean:
                assert float(x.dense().mean().detach()) == pytest.approx(mean, rel=EXACT)


@pytest.mark.parametrize("name", formats)
def test_a_mean_of_zero_strays_as_that_of_independent_entries(name: str) -> None:
    torch.manual_seed(0)
    for value in values(name)[:4]:
        x = FactorizedTensor(value)
        means = torch.tensor([float(init.normal_(x, 0.0, 1.0).dense().detach().mean()) for _ in range(60)])
        assert means.square().mean().sqrt() < 2.0 / math.sqrt(x.dense().numel())
        assert abs(means.mean()) < 4 * means.std() / math.sqrt(60)


@pytest.mark.parametrize("name", formats)
def test_complex_weights_have_complex_means(name: str) -> None:
    for value in values(name, torch.complex128)[:4]:
        x = init.normal_(FactorizedTensor(value), 1 - 2j, 0.5)  # type: ignore[arg-type]
        assert complex(x.dense().detach().mean()) == pytest.approx(1 - 2j, rel=EXACT)
        assert deviation(x.dense()) == pytest.approx(0.5, rel=EXACT)
        init.normal_(x, 0.0, 0.5)
        assert deviation(x.dense().real) == pytest.approx(0.5 / math.sqrt(2), rel=0.5)


@pytest.mark.parametrize("name", formats)
@pytest.mark.parametrize("number", [0.0, 1.0, -0.7])
def test_constant_weights_are_constant_and_all_factors_learn(name: str, number: float) -> None:
    torch.manual_seed(0)
    for value in values(name):
        x = init.constant_(FactorizedTensor(value), number)
        assert torch.allclose(x.dense(), torch.full_like(x.dense(), number), rtol=1e-12, atol=1e-14)
        target = torch.randn(x.shape, dtype=torch.float64)
        rate = torch.optim.SGD(x.parameters(), 1e-3)
        for _ in range(2):  # where a factor is zero, the others get gradients after the first step
            rate.zero_grad()
            (x.dense() - target).square().sum().backward()
            rate.step()
        assert all(bool(p.grad.any()) for p in x.parameters())
        if name == "cp" and number:
            assert all(bool((p.grad != 0).all()) for p in x.parameters()), "every component learns"


def test_zeros_and_ones_are_constants() -> None:
    x = FactorizedTensor.new((4, 5, 6), 3, "tt")
    assert not init.zeros_(x).dense().any() and sum(bool(p.any()) for p in x.parameters()) == 2
    assert torch.allclose(init.ones_(x).dense(), torch.ones(4, 5, 6))
    assert torch.allclose(init.normal_(x, 0.5, 0.0).dense(), torch.full((4, 5, 6), 0.5))


@pytest.mark.parametrize("std", [0.01, 1.0])
def test_a_seed_gives_the_same_weight(std: float) -> None:
    x, y = (FactorizedTensor.new((8, 6), 2, "cp") for _ in range(2))
    for draw in (init.normal_, init.xavier_uniform_, init.kaiming_normal_):
        first = draw(x, generator=torch.Generator().manual_seed(1)).dense()
        assert torch.equal(first, draw(y, generator=torch.Generator().manual_seed(1)).dense())
        assert not torch.equal(first, draw(y, generator=torch.Generator().manual_seed(2)).dense())


@pytest.mark.parametrize("name", formats)
def test_parameters_keep_their_identity(name: str) -> None:
    x = FactorizedTensor(values(name)[1])
    before = [(p, p.data_ptr()) for p in x.parameters()]
    init.normal_(x, 1.0, 2.0)
    assert all(p is q and q.data_ptr() == at for (p, at), q in zip(before, x.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_weights_have_the_deviation_to_their_precision(dtype: torch.dtype) -> None:
    for name in ("cp", "tt", "tucker"):
        x = init.normal_(FactorizedTensor.new((16, 12, 8), 4, name, dtype=dtype), 0.0, 0.05)
        assert x.dtype == dtype
        assert deviation(x.dense().double()) == pytest.approx(0.05, rel=1e-2)


# Layers ---------------------------------------------------------------------------------------------------

LAYERS: dict[str, Any] = {
    "low rank": lambda: FactorizedLinear(48, 36, rank=4),
    "TT-matrix": lambda: FactorizedLinear(
        48, 36, rank=4, format="tt", layout="(o0=6 o1) (i0=6 i1) -> (o0 i0) (o1 i1)"
    ),
    "CP of digits": lambda: FactorizedLinear(
        48, 36, rank=4, format="cp", layout="(o0=6 o1) (i0=6 i1) -> o0 o1 i0 i1"
    ),
    "spatial": lambda: FactorizedConv(
        8, 12, (3, 5), rank=4, format="lowrank", layout="o i h w -> (i h) (o w)"
    ),
    "groups": lambda: FactorizedConv(
        8, 12, (3, 3), rank=3, format="tucker", layout="(g=2 o) i h w -> (g o) i h w", groups=2
    ),
}


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("nonlinearity", ["relu", "leaky_relu", "tanh", "linear"])
def test_kaiming_gives_the_deviation_that_torch_gives_the_dense_twin(
    which: str, mode: str, nonlinearity: str
) -> None:
    layer = LAYERS[which]().double()
    shape = tuple(layer.to_dense().weight.shape)
    fan = nn.init._calculate_correct_fan(torch.empty(shape), mode)  # type: ignore[arg-type]
    wanted = nn.init.calculate_gain(nonlinearity, 0.3) / math.sqrt(fan)  # type: ignore[arg-type]
    for draw in (init.kaiming_normal_, init.kaiming_uniform_):
        assert draw(layer, 0.3, mode, nonlinearity) is layer
        assert deviation(layer.dense_weight()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("which", LAYERS)
def test_xavier_gives_the_deviation_that_torch_gives_the_dense_twin(which: str) -> None:
    layer = LAYERS[which]().double()
    dense = torch.empty(layer.to_dense().weight.shape)
    fans = nn.init._calculate_fan_in_and_fan_out(dense)
    for draw in (init.xavier_normal_, init.xavier_uniform_):
        draw(layer.weight, gain=1.7)
        assert deviation(layer.dense_weight()) == pytest.approx(1.7 * math.sqrt(2 / sum(fans)), rel=1e-6)


def test_the_fans_of_a_table_are_those_of_the_rows_it_has() -> None:
    layer = FactorizedEmbedding(1009, 16, format="tt", rank=4, layout="(v0 v1) (o0 o1) -> (v0 o0) (v1 o1)")
    assert layer.stored_rows > 1009 and init.fans(layer) == (16, 1009)
    assert init.fans(TensorizedTensor.new(((4, 4), (3, 7)), 2, "tt")) == (21, 16)


def test_biases_are_left_alone_and_outputs_have_the_variance_of_the_dense_layer() -> None:
    torch.manual_seed(0)
    layer = LAYERS["TT-matrix"]()
    bias = layer.bias.detach().clone()
    init.kaiming_normal_(layer, nonlinearity="linear")
    assert torch.equal(layer.bias, bias)
    y = layer(torch.randn(4000, 48)) - bias
    assert float(y.detach().std()) == pytest.approx(1.0, rel=0.1)


def test_a_loop_may_run_over_a_model_with_dense_layers() -> None:
    model = nn.Sequential(nn.Linear(400, 300), FactorizedLinear(300, 200, rank=4), nn.Conv2d(30, 40, 3))
    for layer in model:
        for draw in (init.kaiming_uniform_, init.xavier_normal_, init.normal_, init.uniform_, init.zeros_):
            assert draw(layer) is layer
        assert (
            not layer.weight.dense().any() if isinstance(layer, FactorizedLinear) else not layer.weight.any()
        )
        init.normal_(layer, 0.0, 0.1)
        dense = layer.weight.dense() if isinstance(layer, FactorizedLinear) else layer.weight
        assert float(dense.detach().std()) == pytest.approx(0.1, rel=0.05)
    assert float(init.normal_(torch.empty(100, 100), 5.0, 0.1).mean()) == pytest.approx(5, rel=0.01)


def test_gates_are_opened() -> None:
    layer = FactorizedLinear(12, 8, rank=3)
    put_gates([layer.weight])
    assert isinstance(layer.weight, GatedTensor)
    with torch.no_grad():
        layer.weight.gates["R"].copy_(torch.tensor([0.0, 2.0, -1.0]))
    init.normal_(layer, 0.0, 0.3)
    assert torch.equal(layer.weight.gates["R"], torch.ones(3))
    assert deviation(layer.dense_weight()) == pytest.approx(0.3, rel=1e-5)


def test_on_the_meta_device_nothing_is_drawn() -> None:
    x = FactorizedTensor.new((4, 5), 2, "cp", device="meta")
    assert init.constant_(init.normal_(x, 1.0, 2.0), 2.0).device.type == "meta"


# What is refused ------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_before_anything_is_changed() -> None:
    x = FactorizedTensor.new((4, 5), 2, "cp")
    single = FactorizedTensor.new((1, 1), 1, "cp")
    before = x.dense().detach().clone()
    refused: list[tuple[type[Exception], str, Any]] = [
        (OptionError, "std -1", lambda: init.normal_(x, 0.0, -1.0)),
        (OptionError, "mean nan", lambda: init.normal_(x, math.nan, 1.0)),
        (OptionError, "the bounds came as 1", lambda: init.uniform_(x, 1.0, 0.0)),
        (OptionError, "mode came as 'fan'", lambda: init.kaiming_normal_(x, mode="fan")),
        (OptionError, "came for a weight of torch.float32", lambda: init.normal_(x, 1j, 1.0)),  # type: ignore[arg-type]
        (ShapeError, "has no fans", lambda: init.xavier_normal_(FactorizedTensor.new((4,), 1, "tt"))),
        (UnsupportedError, "ReLU has no weight", lambda: init.normal_(nn.ReLU())),
        (OptionError, "cannot have the deviation", lambda: init.normal_(single, 1.0, 1.0)),
    ]  # fmt: skip
    for kind, message, call in refused:
        with pytest.raises(kind, match=message):
            call()
    assert torch.equal(x.dense(), before)


# Random factors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", formats)
def test_new_tensors_have_the_deviation_at_every_draw(name: str) -> None:
    for value in values(name):
        x = FactorizedTensor.new(value.shape, value.ranks, name, std=0.3, dtype=torch.float64)
        assert deviation(x.dense()) == pytest.approx(0.3, rel=EXACT)


@pytest.mark.parametrize("kind", [CP, Tucker, TensorTrain, HierarchicalTucker, BlockTerm])
def test_scaled_factors_share_the_scale(kind: type[Format]) -> None:
    value = kind.random((4, 5, 6), 2, like=torch.zeros((), dtype=torch.float64))
    scaled = scaled_to(value, 2.0)
    ratios = [float((b / a).mean()) for a, b in zip(value.factors, scaled.factors, strict=True)]
    assert max(ratios) / min(ratios) == pytest.approx(1.0)


@pytest.mark.parametrize("name", formats)
def test_large_tensors_are_measured_as_small_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in values(name):
        wanted = deviation(value.dense())
        for most in (1 << 20, 60, 7):
            monkeypatch.setattr(moments, "PIECE", most)
            assert moments.deviation(value.network, list(value.factors)) == pytest.approx(wanted, rel=EXACT)
        monkeypatch.setattr(moments, "MANY", 7)
        assert moments.deviation(value.network, list(value.factors)) == pytest.approx(wanted, rel=EXACT)
        monkeypatch.undo()
