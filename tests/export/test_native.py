"""The chain of torch's own modules computes what the factorized layer does."""

import pytest
import torch
from torch import nn

from tenfold import Budget, compress, fold, to_native
from tenfold.nn import FactorizedConv, FactorizedLayer, FactorizedLinear

NATIVE = [
    ("lowrank", "o i h w -> o (i h w)", 16),
    ("lowrank", "o i h w -> (i h) (o w)", 16),
    ("cp", "o i h w -> o i (h w)", 24),
    ("cp", "o i h w -> o i h w", 24),
    ("tucker", "o i h w -> o i (h w)", (16, 16, None)),
]
OPTIONS = [
    {},
    {"stride": 2, "padding": 1, "bias": False},
    {"padding": "same"},
    {"padding": (1, 2), "padding_mode": "circular", "dilation": 2},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "replicate", "stride": (2, 1)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("format, layout, rank", NATIVE, ids=str)
def test_native_chain_equals_the_layer(format: str, layout: str, rank: object, options: dict) -> None:
    torch.manual_seed(0)
    layer = FactorizedConv(
        96, 128, (3, 2), rank=rank, format=format, layout=layout, dtype=torch.float64,
        example=(10**6, 96, 9, 9), **options,
    )  # fmt: skip
    x = torch.randn(2, 96, 9, 9, dtype=torch.float64)
    chain = to_native(layer)
    assert isinstance(chain, nn.Sequential)
    assert not any(isinstance(m, FactorizedLayer) for m in chain.modules())
    torch.testing.assert_close(chain(x), layer(x), rtol=0, atol=1e-12)


def test_native_linear_equals_the_layer() -> None:
    layer = FactorizedLinear(512, 300, rank=7, dtype=torch.float64)
    x = torch.randn(3, 512, dtype=torch.float64)
    torch.testing.assert_close(to_native(layer)(x), layer(x))


def test_a_layer_that_is_no_smaller_chain_stays_as_it_is() -> None:
    layer = FactorizedConv(
        16, 16, (3, 3), rank=2, format="tt", layout="(o0=4 o1) (i0=4 i1) h w -> (h w) (o0 i0) (o1 i1)"
    )
    x = torch.randn(1, 16, 8, 8)
    copy = to_native(layer)
    assert isinstance(copy, FactorizedConv) and copy is not layer
    assert torch.equal(copy(x), layer(x))


def test_native_model_shares_nothing_with_the_compressed_one() -> None:
    net = nn.Sequential(nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()
    x = torch.randn(2, 8, 9, 9)
    small = compress(net, Budget(params=0.4), example=x).model
    native = to_native(small)
    torch.testing.assert_close(native(x), small(x), atol=1e-5, rtol=1e-4)
    assert isinstance(small[0], FactorizedConv) and isinstance(native[0], nn.Sequential)
    assert not {p.data_ptr() for p in native.parameters()} & {p.data_ptr() for p in small.parameters()}


FOLDED = [
    *NATIVE,
    ("tt", "(o0=4 o1) (i0=3 i1) h w -> (h w) (o0 i0) (o1 i1)", (2, 3)),
    ("tucker", "o i h w -> o i h w", 2),
]


@pytest.mark.parametrize("batch", [1, 10**6])
@pytest.mark.parametrize("format, layout, rank", FOLDED, ids=str)
def test_folded_layer_equals_the_layer_and_merges_nothing(
    format: str, layout: str, rank: object, batch: int
) -> None:
    layer = FactorizedConv(
        12,
        16,
        (3, 2),
        rank=rank,
        format=format,
        layout=layout,
        dtype=torch.float64,
        example=(batch, 12, 9, 9),
    )
    x = torch.randn(2, 12, 9, 9, dtype=torch.float64)
    small = fold(layer)
    assert not small.program.merges and "merge" not in small.program.kinds
    torch.testing.assert_close(small(x), layer(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(small(x[0]), layer(x)[0], rtol=0, atol=1e-12)


def test_folded_model_equals_the_compressed_one() -> None:
    net = nn.Sequential(
        nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(800, 40)
    ).eval()
    x = torch.randn(2, 8, 9, 9)
    small = compress(
        net, Budget(params=0.4), example=x, preset="tt_conv", select={"Linear": "tt_matrix"}
    ).model
    inference = fold(small)
    assert not any(isinstance(m, FactorizedLayer) for m in inference.modules())
    torch.testing.assert_close(inference(x), small(x), atol=1e-5, rtol=1e-4)


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = FactorizedLinear(64, 64, rank=4)
        self.two = self.one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x))


def test_a_layer_under_two_names_is_one_chain() -> None:
    model, x = Twice(), torch.randn(2, 64)
    native = to_native(model)
    assert isinstance(native.one, nn.Sequential) and native.one is native.two
    torch.testing.assert_close(native(x), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (0, 1)], ids=str)
def test_frozen_factors_stay_frozen(frozen: tuple[int, ...]) -> None:
    layer = FactorizedLinear(64, 32, rank=4, bias=False)
    factors = layer.weight.factors()
    for place in frozen:
        factors[place].requires_grad_(False)
    sizes = {tuple(factor.shape): factor.requires_grad for factor in factors}
    found = {tuple(p.shape): p.requires_grad for p in to_native(layer).parameters()}
    assert {frozenset(shape): can for shape, can in found.items()} == {
        frozenset(shape): can for shape, can in sizes.items()
    }


def test_products_are_trained_if_a_factor_is() -> None:
    layer = FactorizedConv(
        64, 64, (3, 3), rank=16, format="cp", layout="o i h w -> o i h w", example=(10**6, 64, 9, 9)
    )
    assert "merge" in layer.program.kinds
    assert all(p.requires_grad for p in to_native(layer).parameters())
    layer.requires_grad_(False)
    assert not any(p.requires_grad for p in to_native(layer).parameters())
