"""Transposed convolutions equal their dense twins in every format and layout, with every option of torch."""

from typing import Any

import pytest
import torch
from torch import nn

from tenfold.compress.cost import dense_flops
from tenfold.core.errors import LayoutError, OptionError, ShapeError
from tenfold.core.layout import Layout
from tenfold.decompose import HOOI, TTSVD, SlicedSVD, TruncatedSVD
from tenfold.formats import formats
from tenfold.measure import flops
from tenfold.nn import FactorizedConvTranspose
from tenfold.nn.convolution.kernel import SPATIAL
from tenfold.testing import check_layer
from tenfold.testing.layers import check_dense_twin


@pytest.fixture(autouse=True)
def _compile_anew() -> None:
    """Torch counts how often one function is compiled, over all tests."""
    torch._dynamo.reset()


DENSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
LENGTHS, TAPS = (4, 5, 3), (3, 2, 4)

LAYOUTS = {
    "lowrank": {1: ["i o w -> i (o w)", "i o w -> (i w) o"], 2: ["i o h w -> (i h) (o w)"]},
    "sliced_lowrank": {
        1: ["(i0=2 i1) o w -> o i0 (i1 w)"],
        2: ["(i0=2 i1) o h w -> (o w) i0 (i1 h)", "i (o0=2 o1) h w -> (i h w) o0 o1"],
        3: ["(i0=2 i1) o d h w -> (o d) i0 (i1 h w)"],
    },
    "kronecker": {1: ["i o w -> i (o w)"], 2: ["i o h w -> i h o w"], 3: ["i o d h w -> (i d) h o w"]},
    "tucker": {2: ["i o h w -> o i (h w)", "i o h w -> o i h w"]},
    "cp": {2: ["i o h w -> o i (h w)", "(i0=2 i1) o h w -> i1 h o i0 w"]},
    "tt": {2: ["i o h w -> i h w o", "(i0=2 i1) (o0=3 o1) h w -> (h w) (o0 i0) (o1 i1)"]},
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (3, 1, 2), "padding": (0, 2, 1), "dilation": (1, 2, 1), "output_padding": (2, 1, 0)},
    {"dilation": 2, "output_padding": 1, "bias": False},
    {"stride": 3, "groups": 2, "padding": 1},
    {"groups": 4, "bias": False},
]


def layouts(format: str, order: int) -> list[str]:
    """Those of the table, or a mode for every axis."""
    axes = " ".join(SPATIAL[order])
    usual = f"i o {axes} -> i (o {axes})" if format == "lowrank" else f"i o {axes} -> i {axes} o"
    return LAYOUTS.get(format, {}).get(order, [usual])


CASES = [(f, n, layout) for f in formats for n in DENSE for layout in layouts(f, n)]


def made(
    format: str, order: int, layout: str, options: dict[str, Any], batch: int = 2
) -> FactorizedConvTranspose:
    torch.manual_seed(0)
    options = {k: v[:order] if isinstance(v, tuple) else v for k, v in options.items()}
    if (groups := options.get("groups", 1)) > 1:
        parsed = Layout.parse(layout)
        layout = str(parsed.with_axis("g", parsed.weight[0][0], groups))
    return FactorizedConvTranspose(
        8, 24, TAPS[:order], rank=2, format=format, layout=layout,
        example=(batch, 8, *LENGTHS[:order]), dtype=torch.float64, **options,
    )  # fmt: skip


def batch(order: int) -> torch.Tensor:
    return torch.randn(2, 8, *LENGTHS[:order], dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("format, order, layout", CASES, ids=str)
def test_transposed_convolution_equals_its_dense_twin(
    format: str, order: int, layout: str, options: dict[str, Any]
) -> None:
    check_dense_twin(made(format, order, layout, options), batch(order))


@pytest.mark.parametrize("format, order, layout", CASES, ids=str)
def test_large_batches_run_factor_by_factor_and_equal_the_dense_twin(
    format: str, order: int, layout: str
) -> None:
    layer = made(format, order, layout, OPTIONS[2], batch=10**6)
    check_dense_twin(layer, batch(order))


@pytest.mark.parametrize(
    "format, layout, rank, kinds",
    [
        ("tucker", "i o h w -> o i (h w)", (96, 96, None), ("1x1", "transposed 4x4", "1x1")),
        ("cp", "i o h w -> o i (h w)", 64, ("1x1", "depthwise transposed 4x4", "1x1")),
        ("lowrank", "i o h w -> (i h) (o w)", 96, ("transposed 4x1", "transposed 1x4")),
        ("lowrank", "i o h w -> (o h w) i", 96, ("1x1", "transposed 4x4")),
        ("lowrank", "i o h w -> o (i h w)", 96, ("transposed 4x4", "1x1")),
        ("tt", "i o h w -> i h w o", 96, ("1x1", "transposed 4x1", "transposed 1x4", "1x1")),
    ],
    ids=["tucker2", "cp3", "spatial svd", "input svd", "channel svd", "train"],
)
def test_published_sequences(format: str, layout: str, rank: Any, kinds: tuple[str, ...]) -> None:
    layer = FactorizedConvTranspose(
        256,
        256,
        (4, 4),
        rank=rank,
        format=format,
        layout=layout,
        stride=2,
        padding=1,
        example=(8, 256, 14, 14),
    )
    assert layer.program.kinds == kinds


def test_a_cp_kernel_of_order_four_can_transpose_one_axis_at_a_time() -> None:
    layer = FactorizedConvTranspose(
        64, 64, (32, 32), rank=32, format="cp", layout="i o h w -> i o h w", example=(64, 64, 32, 32)
    )
    assert sorted(layer.program.kinds) == [
        "1x1", "1x1", "depthwise transposed 1x32", "depthwise transposed 32x1",
    ]  # fmt: skip


@pytest.mark.parametrize("format, order, layout", CASES, ids=str)
def test_planned_flops_are_those_that_a_counter_finds(format: str, order: int, layout: str) -> None:
    layer = made(format, order, layout, OPTIONS[1], batch=64)
    x = torch.zeros(64, 8, *LENGTHS[:order], device="meta", dtype=torch.float64)
    convolutions = sum(line.flops for line in layer.program.lines if line.kind != "merge")
    merges = layer.program.flops - convolutions
    assert convolutions <= flops(layer.to("meta"), x) <= convolutions + merges


@pytest.mark.parametrize("order", DENSE)
def test_dense_flops_are_those_that_a_counter_finds(order: int) -> None:
    dense = DENSE[order](8, 24, TAPS[:order], stride=2, padding=1, groups=4, bias=False)
    assert dense_flops(dense, (2, 8, *LENGTHS[:order])) == flops(dense, torch.zeros(2, 8, *LENGTHS[:order]))


METHODS = [
    (HOOI(), (6, 4, None), "i o h w -> o i (h w)"),
    (TTSVD(), 40, "i o h w -> i h w o"),
    (TruncatedSVD(), 30, "i o h w -> (i h) (o w)"),
    (SlicedSVD(), 30, "(i0=2 i1) o h w -> o i0 (i1 h w)"),
]


@pytest.mark.parametrize("method, ranks, layout", METHODS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_layer_decomposed_at_full_rank_computes_what_the_dense_one_does(
    method: Any, ranks: Any, layout: str
) -> None:
    torch.manual_seed(0)
    dense = nn.ConvTranspose2d(4, 6, (2, 3), (2, 1), padding=1, output_padding=(1, 0), dtype=torch.float64)
    layer = FactorizedConvTranspose.from_conv(dense, method, ranks, layout)
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=1e-12)
    assert layer.bias is not None and layer.bias.data_ptr() != dense.bias.data_ptr()


@pytest.mark.parametrize("size", [(8, 7), (7, 8), (2, 12, 8, 7), (8, 8)])
def test_output_size_means_what_it_means_to_torch(size: tuple[int, ...]) -> None:
    layer = FactorizedConvTranspose(
        8,
        12,
        (3, 3),
        rank=3,
        format="cp",
        layout="i o h w -> o i h w",
        stride=2,
        padding=1,
        dtype=torch.float64,
    )
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x, size), layer.to_dense()(x, list(size)))
    assert layer(x[0], size[-2:]).shape == (12, *size[-2:])
    assert layer(x[0], (12, *size[-2:])).shape == (12, *size[-2:])


@pytest.mark.parametrize("size", [(6, 7), (7, 9), (7,), (2, 7, 7)])
def test_an_output_size_out_of_reach_is_refused(size: tuple[int, ...]) -> None:
    layer = FactorizedConvTranspose(
        8, 12, (3, 3), rank=3, format="cp", layout="i o h w -> o i h w", stride=2, padding=1
    )
    with pytest.raises(ShapeError, match="output_size"):
        layer(torch.zeros(2, 8, 4, 4), size)


@pytest.mark.slow
def test_output_size_compiles_and_exports_with_a_dynamic_batch() -> None:
    layer = FactorizedConvTranspose(
        8, 12, (3, 3), rank=3, format="tucker", layout="i o h w -> o i h w", stride=2, padding=1
    ).eval()
    x = torch.randn(2, 8, 4, 4)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for images in (x, torch.cat([x, x, x])):
        torch.testing.assert_close(compiled(images, (8, 7)), layer(images, (8, 7)))
    shapes = ({0: torch.export.Dim.DYNAMIC}, (None, None))
    program = torch.export.export(layer, (x, (8, 7)), dynamic_shapes=shapes).module()
    torch.testing.assert_close(program(torch.cat([x, x, x]), (8, 7)), layer(torch.cat([x, x, x]), (8, 7)))


@pytest.mark.parametrize("format", list(formats))
def test_every_format_obeys_every_law(format: str) -> None:
    layer = made(format, 2, layouts(format, 2)[0], OPTIONS[1])
    check_layer(layer, batch(2))


@pytest.mark.parametrize("order", DENSE)
def test_a_fresh_layer_has_the_deviation_of_torch(order: int) -> None:
    torch.manual_seed(0)
    taps, axes = (3,) * order, " ".join(SPATIAL[order])
    dense = DENSE[order](64, 48, taps, groups=2)
    layer = FactorizedConvTranspose(
        64, 48, taps, rank=64, format="lowrank", layout=f"(g=2 i) o {axes} -> (g i) (o {axes})", groups=2
    )
    assert abs(float(layer.weight.dense().detach().std() / dense.weight.detach().std()) - 1) < 0.1
    assert layer.bias is not None and dense.bias is not None
    assert abs(float(layer.bias.detach().abs().max() / dense.bias.detach().abs().max()) - 1) < 0.1


def test_a_number_of_parameters_or_a_fraction_can_be_asked_for() -> None:
    settings: dict[str, Any] = {"format": "tucker", "layout": "i o h w -> o i (h w)"}
    by_count = FactorizedConvTranspose(32, 64, (3, 3), params=5000, **settings)
    by_share = FactorizedConvTranspose(32, 64, (3, 3), rank=0.25, **settings)
    assert 4500 < by_count.weight.numel() <= 5000
    assert by_share.weight.numel() <= 0.25 * 32 * 64 * 9
    with pytest.raises(OptionError, match="Give one of the two"):
        FactorizedConvTranspose(32, 64, (3, 3), **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = FactorizedConvTranspose(
        6, 4, (3, 3), rank=2, format="cp", layout="i o h w -> o i h w", stride=2, bias=False, dtype=dtype
    )
    x = torch.randn(2, 6, 4, 4).to(dtype)
    y = layer(x).detach()
    wide = torch.complex128 if dtype.is_complex else torch.float64
    weight = layer.weight.value.map(lambda f: f.detach().to(wide)).dense()
    weight = layer.layout.to_weight(weight)
    expected = nn.functional.conv_transpose2d(x.to(wide), weight, stride=2)
    limit = 0.05 if dtype in (torch.bfloat16, torch.float16) else 1e-5
    assert y.dtype == dtype
    assert float((y - expected).norm() / expected.norm()) < limit


def test_autocast_runs_the_steps_in_half_precision() -> None:
    layer = FactorizedConvTranspose(6, 4, (3, 3), rank=2, format="cp", layout="i o h w -> o i h w")
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.zeros(2, 6, 4, 4)).dtype == torch.bfloat16


def test_functional_calls_and_vmap_over_stacked_layers() -> None:
    layers = [made("cp", 2, "i o h w -> o i h w", {}) for _ in range(3)]
    with torch.no_grad():
        for k, layer in enumerate(layers):
            for p in layer.parameters():
                p.mul_(k + 1)
    parameters, buffers = torch.func.stack_module_state(layers)

    def call(own: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layers[0], (own, buffers), (x,))

    x = batch(2)
    found = torch.vmap(call, in_dims=(0, None))(parameters, x)
    torch.testing.assert_close(found, torch.stack([layer(x) for layer in layers]))


def test_unbatched_and_empty_batches_pass_through() -> None:
    layer = FactorizedConvTranspose(4, 6, (3, 3), rank=2, format="cp", layout="i o h w -> o i (h w)")
    assert layer(torch.zeros(4, 8, 8)).shape == (6, 10, 10)
    assert layer(torch.zeros(0, 4, 8, 8)).shape == (0, 6, 10, 10)
    assert isinstance(layer.to_dense(), nn.ConvTranspose2d)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"padding_mode": "reflect"}, "padding_mode came as 'reflect'"),
        ({"padding": "same"}, "padding came as 'same'"),
        ({"output_padding": 1}, "output_padding came as"),
        ({"stride": 0}, "stride came as"),
        ({"padding": -1}, "padding came as"),
        ({"dilation": 0}, "dilation came as"),
        ({"groups": 0}, "groups came as"),
        ({"groups": 3}, "3 groups do not divide"),
        ({"stride": (1, 2, 3)}, "for 2 spatial axes"),
    ],
    ids=str,
)
def test_options_that_cannot_be_served_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        FactorizedConvTranspose(4, 6, (3, 3), rank=2, format="cp", layout="i o h w -> o i (h w)", **options)


@pytest.mark.parametrize(
    "layout, groups, said",
    [
        ("o i h w -> o i h w", 1, "which does not say its role"),
        ("i o h w -> i o h w", 2, r'Begin the inputs with an axis "g" of that size: "\(g=2 i\) o ...".'),
        ("i o h (w0=3 w1) -> i o h w0 w1", 1, "splits a spatial axis"),
        ("i o -> i o", 1, "describes 2"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(layout: str, groups: int, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        FactorizedConvTranspose(4, 4, (3, 3), rank=2, format="cp", layout=layout, groups=groups)
