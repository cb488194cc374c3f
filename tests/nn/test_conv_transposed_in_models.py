"""Transposed convolutions in whole models: found, compressed, counted, exported, saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold import Budget, compress, fold, to_native
from tenfold.checkpoint import load, save
from tenfold.compress import find_sites
from tenfold.compress.densify import to_dense_
from tenfold.compress.presets import presets
from tenfold.decompose import CPALS
from tenfold.formats import formats
from tenfold.measure import flops
from tenfold.nn import FactorizedConvTranspose, FactorizedLayer, replacement

SERVING = [name for name in presets if "i o h w" in presets[name].layouts]
EXACT = [
    (name, order)
    for order, axes in ((1, "i o w"), (2, "i o h w"), (3, "i o d h w"))
    for name in presets
    if axes in presets[name].layouts and presets[name].format != "cp"
]
"""Presets at full rank keep the function; CP at full rank is no projection."""
CHAINS = [
    ("lowrank", "i o h w -> o (i h w)", 16),
    ("lowrank", "i o h w -> (i h) (o w)", 16),
    ("cp", "i o h w -> o i (h w)", 24),
    ("cp", "i o h w -> o i h w", 24),
    ("tucker", "i o h w -> o i (h w)", (16, 16, None)),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1, "bias": False},
    {"stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)},
]


def autoencoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 48, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(48, 24, 3, 1, 1, groups=2),
    ).eval()


def images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_every_preset_of_convolutions_serves_transposed_ones_too() -> None:
    ordinary = {name for name in presets if "o i h w" in presets[name].layouts}
    assert set(SERVING) == ordinary and len(SERVING) >= 8
    for axes in ("i o w", "i o d h w"):
        twin = axes.replace("i o", "o i")
        assert {n for n in presets if axes in presets[n].layouts} == {
            n for n in presets if twin in presets[n].layouts
        }


def test_transposed_convolutions_are_sites() -> None:
    sites = find_sites(autoencoder(), images())
    assert [(s.name, s.shape, s.example) for s in sites if s.kind == "ConvTranspose2d"] == [
        ("2.weight", (32, 48, 4, 4), (2, 32, 8, 8)),
        ("4.weight", (48, 12, 3, 3), (2, 48, 16, 16)),
    ]


@pytest.mark.filterwarnings("ignore::tenfold.core.errors.ConvergenceWarning")
@pytest.mark.parametrize("preset", SERVING)
def test_every_preset_compresses_them_within_a_budget_of_parameters(preset: str) -> None:
    net, x = autoencoder(), images()
    method = CPALS(max_steps=3) if presets[preset].format == "cp" else None
    small = compress(net, Budget(params=0.5), example=x, preset=preset, method=method).model
    assert isinstance(small[2], FactorizedConvTranspose)
    assert sum(p.numel() for p in small.parameters()) < 0.52 * sum(p.numel() for p in net.parameters())
    assert small(x).shape == net(x).shape
    torch.testing.assert_close(fold(small)(x), small(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(to_native(small)(x), small(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", ["tucker2", "channel_svd", "spatial_svd"])
def test_a_budget_of_flops_is_met_as_a_counter_sees_it(preset: str) -> None:
    net, x = autoencoder(), images()
    small = compress(net, Budget(flops=0.5), example=x, preset=preset).model
    assert flops(small, x) <= 0.5 * flops(net, x)
    assert isinstance(small[2], FactorizedConvTranspose)


@pytest.mark.parametrize("preset, order", EXACT)
def test_a_preset_at_full_rank_keeps_the_function(preset: str, order: int) -> None:
    dense_type: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[order - 1]
    torch.manual_seed(0)
    dense = dense_type(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dtype=torch.float64)
    row = presets[preset]
    scheme = row(dense, "up")
    full = formats[row.format].full(scheme.layout.mode_shape, row.whole)
    value = row.method(scheme.layout.to_modes(dense.weight.detach()), full.ranks).value
    layer = replacement(dense).from_dense(dense, value, scheme.layout, None)
    x = torch.randn(2, 4, *(5,) * order, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=1e-12)


def test_a_compressed_model_is_saved_and_loaded(tmp_path: Path) -> None:
    small = compress(autoencoder(), Budget(params=0.5), example=images()).model
    save(small, tmp_path / "small")
    twin = load(autoencoder, tmp_path / "small")
    assert torch.equal(twin(images()), small(images()))


def test_the_way_back_gives_dense_layers_that_compute_the_same() -> None:
    small = compress(autoencoder(), Budget(params=0.5), example=images()).model
    expected = small(images())
    to_dense_(small)
    assert isinstance(small[2], nn.ConvTranspose2d)
    torch.testing.assert_close(small(images()), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("format, layout, rank", CHAINS, ids=str)
def test_native_and_folded_chains_equal_the_layer(
    format: str, layout: str, rank: Any, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    layer = FactorizedConvTranspose(
        96, 128, (3, 4), rank=rank, format=format, layout=layout, dtype=torch.float64,
        example=(10**6, 96, 9, 9), **options,
    )  # fmt: skip
    x = torch.randn(2, 96, 5, 6, dtype=torch.float64)
    chain, folded = to_native(layer), fold(layer)
    assert isinstance(chain, nn.Sequential)
    assert not any(isinstance(m, FactorizedLayer) for m in chain.modules())
    torch.testing.assert_close(chain(x), layer(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(folded(x), layer(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(folded(x[0]), layer(x)[0], rtol=0, atol=1e-12)


def test_a_folded_layer_takes_an_output_size() -> None:
    layer = FactorizedConvTranspose(
        16, 12, (3, 3), rank=4, format="tt", layout="i o h w -> i h w o", stride=2, padding=1
    )
    x = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(fold(layer)(x, (8, 7)), layer(x, (8, 7)))
