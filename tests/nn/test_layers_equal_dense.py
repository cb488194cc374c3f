"""Every layer equals its dense twin, forward and all gradients, over formats, layouts and options."""

import pytest
import torch
from torch import Tensor, nn

from tenfold.core.layout import Layout
from tenfold.nn import FactorizedConv, FactorizedLinear
from tenfold.nn.base import FactorizedLayer

TOLERANCE = 1e-10

LAYOUTS = {
    1: [
        ("lowrank", "o i w -> o (i w)", 3),
        ("lowrank", "o i w -> (o w) i", 3),
        ("sliced_lowrank", "o (i0=2 i1) w -> o i0 (i1 w)", 2),
        ("cp", "o i w -> o i w", 4),
        ("tucker", "o i w -> o i w", (3, 2, None)),
        ("tt", "(o0=2 o1) (i0=2 i1) w -> w (o0 i0) (o1 i1)", (2, 3)),
    ],
    2: [
        ("lowrank", "o i h w -> o (i h w)", 3),
        ("lowrank", "o i h w -> (o h w) i", 3),
        ("lowrank", "o i h w -> (i h) (o w)", 3),
        ("sliced_lowrank", "o (i0=2 i1) h w -> o i0 (i1 h w)", 2),
        ("sliced_lowrank", "o (i0=2 i1) h w -> (o w) i0 (i1 h)", 2),
        ("sliced_lowrank", "o (i0=2 i1) h w -> (o h) i0 (i1 w)", 2),
        ("sliced_lowrank", "o (i0=2 i1) h w -> (o h w) i0 i1", 2),
        ("sliced_lowrank", "(o0=2 o1) i h w -> (i h w) o0 o1", 2),
        ("cp", "o i h w -> o i (h w)", 4),
        ("cp", "o i h w -> o i h w", 4),
        ("tucker", "o i h w -> o i (h w)", (3, 2, None)),
        ("tucker", "o i h w -> o i h w", (3, 2, 2, 2)),
        ("tt", "o i h w -> i h w o", (2, 3, 2)),
        ("tt", "(o0=2 o1) (i0=2 i1) h w -> (h w) (o0 i0) (o1 i1)", (2, 3)),
        ("tt", "(o0=2 o1) (i0=2 i1) h w -> (o0 i0) h (o1 i1) w", (2, 3, 2)),
    ],
    3: [
        ("cp", "o i d h w -> o i d h w", 4),
        ("cp", "o i d h w -> o i (d h w)", 4),
        ("tucker", "o i d h w -> o i (d h w)", (3, 2, None)),
        ("tt", "o i d h w -> i d h w o", (2, 3, 2, 2)),
        ("lowrank", "o i d h w -> (i d) (o h w)", 3),
        ("sliced_lowrank", "o (i0=2 i1) d h w -> (o d) i0 (i1 h w)", 2),
    ],
}
LAYOUT_CASES = [(order, *case) for order, cases in LAYOUTS.items() for case in cases]

OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (3, 1, 2), "padding": (0, 2, 1), "dilation": (1, 2, 1)},
    {"padding": "same"},
    {"padding": "same", "dilation": 2, "padding_mode": "circular"},
    {"padding": "valid", "bias": False},
    {"padding": 1, "padding_mode": "reflect", "stride": 2},
    {"padding": (2, 0, 1), "padding_mode": "replicate"},
    {"padding": 2, "padding_mode": "circular", "bias": False},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": 2, "padding": 1, "padding_mode": "circular"},
]


def for_order(options: dict, order: int) -> dict:
    return {k: v[:order] if isinstance(v, tuple) else v for k, v in options.items()}


def grouped(text: str, groups: int) -> str:
    """The layout of a kernel in groups: the outputs begin with the group axis."""
    layout = Layout.parse(text)
    return text if groups == 1 else str(layout.with_axis("g", layout.weight[0][0], groups))


def assert_equals_dense(layer: FactorizedLayer, x: Tensor) -> None:
    """Outputs, and the gradients of the input, the bias and every factor."""
    dense = layer.to_dense()
    weight = layer.weight.dense()
    dense_x, layer_x = (x.clone().requires_grad_() for _ in range(2))
    y = layer(layer_x)
    settings = {name: p for name, p in dense.named_parameters() if name != "weight"}
    expected = torch.func.functional_call(dense, {**settings, "weight": weight}, (dense_x,))
    torch.testing.assert_close(y, expected, rtol=0, atol=TOLERANCE)
    g = torch.randn_like(y)
    factors = layer.weight.factors()
    ours = torch.autograd.grad(y, [layer_x, *factors], g)
    theirs = torch.autograd.grad(expected, [dense_x, *factors], g)
    for own, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-10, atol=TOLERANCE)
    if layer.bias is not None:
        torch.testing.assert_close(
            torch.autograd.grad(layer(x), layer.bias, g)[0],
            torch.autograd.grad(dense(x), dense.bias, g)[0],
            rtol=1e-10,
            atol=TOLERANCE,
        )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's own layer
@pytest.mark.parametrize("batch", [1, 10**6])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("order, format, layout, rank", LAYOUT_CASES, ids=str)
def test_convolution_equals_its_dense_twin(
    order: int, format: str, layout: str, rank: object, options: dict, batch: int
) -> None:
    torch.manual_seed(0)
    options = for_order(options, order)
    groups = options.get("groups", 1)
    lengths = (9, 8, 10)[:order]
    layer = FactorizedConv(
        8, 16, (3, 2, 3)[:order], rank=rank, format=format, layout=grouped(layout, groups),
        example=(batch, 8, *lengths), dtype=torch.float64, **options,
    )  # fmt: skip
    assert_equals_dense(layer, torch.randn(2, 8, *lengths, dtype=torch.float64))


@pytest.mark.parametrize("groups", [6])
@pytest.mark.parametrize(
    "format, layout", [("lowrank", "(g=6 o) i h w -> (g o i h) w"), ("cp", "(g=6 o) i h w -> (g o) i h w")]
)
def test_depthwise_convolution_equals_its_dense_twin(groups: int, format: str, layout: str) -> None:
    torch.manual_seed(0)
    layer = FactorizedConv(
        6, 12, (3, 3), rank=2, format=format, layout=layout, groups=groups, dtype=torch.float64
    )
    assert_equals_dense(layer, torch.randn(2, 6, 7, 7, dtype=torch.float64))


LINEAR = [
    ("lowrank", "o i -> o i", 3),
    ("sliced_lowrank", "o (i0=3 i1) -> o i0 i1", 2),
    ("sliced_lowrank", "(o0=3 o1) i -> i o0 o1", 2),
    ("tt", "(o0=3 o1) (i0=2 i1) -> (o0 i0) (o1 i1)", 3),
    ("tt", "(o0=3 o1=2 o2) (i0=2 i1=2 i2) -> (o0 i0) (o1 i1) (o2 i2)", (3, 2)),
    ("cp", "(o0=3 o1) (i0=2 i1) -> o0 o1 i0 i1", 4),
    ("cp", "(o0=3 o1) (i0=2 i1) -> i1 o0 i0 o1", 4),
    ("cp", "(o0=3 o1) (i0=2 i1) -> (o0 i0) (o1 i1)", 4),
    ("tucker", "(o0=3 o1) (i0=2 i1) -> o0 o1 i0 i1", (2, 2, None, 3)),
    ("tucker", "(o0=3 o1) (i0=2 i1) -> (o0 i0) (o1 i1)", (2, 3)),
    ("tt", "(o0=3 o1) (i0=2 i1) -> o0 i0 o1 i1", (2, 4, 3)),
]


@pytest.mark.parametrize("bias, rows", [(True, 1), (False, 10_000)])
@pytest.mark.parametrize("format, layout, rank", LINEAR, ids=str)
def test_linear_equals_its_dense_twin(format: str, layout: str, rank: object, bias: bool, rows: int) -> None:
    torch.manual_seed(0)
    layer = FactorizedLinear(
        12, 18, rank=rank, format=format, layout=layout, bias=bias, example=(rows, 12), dtype=torch.float64
    )
    for shape in ((12,), (5, 12), (2, 5, 12), (0, 12)):
        assert_equals_dense(layer, torch.randn(shape, dtype=torch.float64))


def test_unbatched_and_empty_batches_pass_through_a_convolution() -> None:
    layer = FactorizedConv(4, 6, (3, 3), rank=2, format="cp", layout="o i h w -> o i (h w)")
    assert layer(torch.zeros(4, 8, 8)).shape == (6, 6, 6)
    assert layer(torch.zeros(0, 4, 8, 8)).shape == (0, 6, 6, 6)
    assert isinstance(layer.to_dense(), nn.Conv2d)
