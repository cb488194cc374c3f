"""Groups and depthwise kernels: every format, every preset, both kinds of convolution, and MobileNets."""

from typing import Any

import pytest
import torch
from torch import nn

from tenfold import Budget, compress, fold
from tenfold.compress.presets import presets
from tenfold.formats import formats
from tenfold.measure import flops
from tenfold.nn import FactorizedConv, FactorizedConvTranspose, replacement
from tenfold.nn.convolution.kernel import SPATIAL
from tenfold.testing.layers import check_dense_twin

KINDS: dict[str, Any] = {"ordinary": FactorizedConv, "transposed": FactorizedConvTranspose}
DENSE: dict[tuple[str, int], Any] = {
    ("ordinary", 1): nn.Conv1d,
    ("ordinary", 2): nn.Conv2d,
    ("ordinary", 3): nn.Conv3d,
    ("transposed", 1): nn.ConvTranspose1d,
    ("transposed", 2): nn.ConvTranspose2d,
    ("transposed", 3): nn.ConvTranspose3d,
}
SERVED = [
    (name, kind, order)
    for kind, order in DENSE
    for name in presets
    if f"o i {' '.join(SPATIAL[order])}" in presets[name].layouts
]
CHANNELS = {
    "grouped": (8, 12, 4),
    "depthwise": (6, 6, 6),
    "channel multiplier": (6, 12, 6),
    "channel divisor": (12, 6, 6),
}
MODES = {
    "lowrank": ["(g a) (b {0})", "g (a b {0})"],
    "sliced_lowrank": ["a g (b {0})", "(g a) b ({0})"],
    "kronecker": ["(g a) (b {0})"],
}
USUAL = ["(g a) b ({0})", "g a b ({0})", "b ({0}) (g a)"]
LAYOUTS = [(f, text) for f in formats for text in MODES.get(f, USUAL)]


def layout_of(modes: str, kind: str, order: int, groups: int) -> str:
    """A layout in which "g" numbers the groups, a the outer channels of one and b the inner ones."""
    taps = " ".join(SPATIAL[order])
    outer, inner = ("i", "o") if kind == "transposed" else ("o", "i")
    return f"(g={groups} {outer}) {inner} {taps} -> " + modes.format(taps).replace("a", outer).replace(
        "b", inner
    )


@pytest.mark.parametrize("batch", [1, 10**6])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format, modes", LAYOUTS, ids=str)
def test_every_format_equals_its_dense_twin(
    format: str, modes: str, kind: str, channels: str, batch: int
) -> None:
    torch.manual_seed(0)
    ins, outs, groups = CHANNELS[channels]
    layer = KINDS[kind](
        ins, outs, (3, 2), rank=2, format=format, layout=layout_of(modes, kind, 2, groups), groups=groups,
        stride=2, padding=1, example=(batch, ins, 6, 5), dtype=torch.float64,
    )  # fmt: skip
    check_dense_twin(layer, torch.randn(2, ins, 6, 5, dtype=torch.float64))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("preset, kind, order", SERVED)
def test_every_preset_serves_groups_and_at_full_rank_keeps_the_function(
    preset: str, kind: str, order: int, channels: str
) -> None:
    torch.manual_seed(0)
    ins, outs, groups = CHANNELS[channels]
    dense = DENSE[kind, order](ins, outs, 3, 2, 1, groups=groups, dtype=torch.float64)
    row = presets[preset]
    scheme = row(dense, "conv")
    assert f"g={groups} " in str(scheme.layout)
    tensor, x = scheme.layout.to_modes(dense.weight.detach()), torch.randn(2, ins, *(5,) * order).double()
    if row.format == "cp":  # at full rank CP is no projection
        value = formats["cp"].random(scheme.layout.mode_shape, 3, like=tensor)
        layer = replacement(dense).from_dense(dense, value, scheme.layout, tuple(x.shape))
        torch.testing.assert_close(layer(x), layer.to_dense()(x), rtol=0, atol=1e-12)
        return
    full = formats[row.format].full(scheme.layout.mode_shape, row.whole)
    value = row.method(tensor, full.ranks).value
    layer = replacement(dense).from_dense(dense, value, scheme.layout, tuple(x.shape))
    torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=1e-12)


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def mobilenet() -> nn.Sequential:
    """The layers of MobileNet (Howard et al. 2017), narrow."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False),
        separable(32, 64, 1),
        separable(64, 128, 2),
        separable(128, 128, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    ).eval()


def factorized_groups(model: nn.Module) -> list[bool]:
    """For each factorized convolution whether it has groups."""
    return [m.groups > 1 for m in model.modules() if isinstance(m, FactorizedConv)]


@pytest.mark.parametrize("preset", ["tucker2", "weight_svd", "auto"])
def test_of_a_mobilenet_the_pointwise_layers_pay_and_the_depthwise_ones_stay_dense(preset: str) -> None:
    net, x = mobilenet(), torch.randn(2, 3, 32, 32)
    small = compress(net, Budget(flops=0.6), example=x, preset=preset).model
    found = factorized_groups(small)
    assert found and not any(found)
    assert flops(small, x) <= 0.6 * flops(net, x)
    torch.testing.assert_close(fold(small)(x), small(x), atol=1e-4, rtol=1e-3)


def test_depthwise_kernels_that_are_factored_for_their_size_run_as_depthwise_kernels() -> None:
    net, x = mobilenet(), torch.randn(2, 3, 32, 32)
    small = compress(net, Budget(params=0.5), example=x, preset="tucker2").model
    assert sum(p.numel() for p in small.parameters()) < 0.55 * sum(p.numel() for p in net.parameters())
    grouped = [m for m in small.modules() if isinstance(m, FactorizedConv) and m.groups > 1]
    assert grouped and all(m.program.kinds[-1] == "depthwise 3x3" for m in grouped)
    torch.testing.assert_close(fold(small)(x), small(x), atol=1e-4, rtol=1e-3)
