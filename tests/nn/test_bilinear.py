"""Bilinear layers equal their dense twins in every format and layout."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold import fold, to_native
from tenfold.core.errors import LayoutError, OptionError, ShapeError
from tenfold.core.program import Merge
from tenfold.decompose import CPALS, HOOI, TTSVD, SlicedSVD, TruncatedSVD
from tenfold.formats import formats
from tenfold.measure import flops
from tenfold.nn import FactorizedBilinear, replacement
from tenfold.testing import check_layer
from tenfold.testing.layers import check_dense_twin

LAYOUTS = {
    "lowrank": ["o i0 i1 -> o (i0 i1)", "o i0 i1 -> (o i0) i1", "o i0 i1 -> i0 (o i1)"],
    "sliced_lowrank": ["o (i0=2 i1) i2 -> o i0 (i1 i2)", "o (i0=2 i1) i2 -> (o i2) i0 i1"],
    "kronecker": ["(o0=3 o1) (i0=2 i1) (i2=2 i3) -> o0 i0 i2 o1 i1 i3"],
}
USUAL = ["o i0 i1 -> o i0 i1", "o i0 i1 -> i0 o i1", "(o0=3 o1) (i0=2 i1) (i2=2 i3) -> (o0 i0 i2) (o1 i1 i3)"]
CASES = [(f, text) for f in formats for text in LAYOUTS.get(f, USUAL)]


class Both(nn.Bilinear):
    """A dense layer that is called with its two inputs side by side."""

    def forward(self, xz: Tensor) -> Tensor:
        return super().forward(*xz.split([self.in1_features, self.in2_features], dim=-1))


class FactorizedBoth(FactorizedBilinear):
    """A factorized one, for the laws of layers with one input."""

    def forward(self, xz: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(*xz.split([self.in1_features, self.in2_features], dim=-1))

    def to_dense(self) -> Both:
        dense = super().to_dense()
        dense.__class__ = Both
        return dense  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _compile_anew() -> None:
    """Torch counts how often one function is compiled, over all tests."""
    torch._dynamo.reset()


def made(format: str, layout: str, rows: int = 5, bias: bool = True) -> FactorizedBoth:
    torch.manual_seed(0)
    return FactorizedBoth(
        8, 10, 12, rank=3, format=format, layout=layout, bias=bias, example=(rows, 8), dtype=torch.float64
    )


@pytest.mark.parametrize("format", list(formats))
def test_every_format_obeys_every_law(format: str) -> None:
    layout = next(text for f, text in CASES if f == format)
    check_layer(made(format, layout), torch.randn(3, 18, dtype=torch.float64))


@pytest.mark.parametrize("rows", [1, 10**6])
@pytest.mark.parametrize("format, layout", CASES, ids=str)
def test_output_and_gradients_are_those_of_the_dense_twin(format: str, layout: str, rows: int) -> None:
    check_dense_twin(made(format, layout, rows), torch.randn(3, 18, dtype=torch.float64))


@pytest.mark.parametrize("format, layout", CASES, ids=str)
def test_inputs_of_any_shape_equal_the_dense_twin(format: str, layout: str) -> None:
    layer = made(format, layout, bias=False)
    dense = layer.to_dense()
    for shape in ((18,), (5, 18), (2, 3, 18), (0, 18), (2, 0, 18)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=1e-12)


def test_the_published_forms_come_out_by_themselves() -> None:
    cp = FactorizedBilinear(256, 200, 128, rank=32, format="cp", layout="o i0 i1 -> o i0 i1")
    assert cp.program.kinds == ("linear", "linear", "join", "linear")
    assert cp.program.flops == 2 * 256 * 32 * (256 + 200 + 128 + 1)
    tucker = FactorizedBilinear(256, 200, 128, rank=24, format="tucker", layout="o i0 i1 -> o i0 i1")
    assert tucker.program.kinds.count("linear") == 4 and tucker.program.kinds.count("join") == 1
    assert tucker.program.flops < 0.05 * 2 * 256 * 256 * 200 * 128


@pytest.mark.parametrize("format, layout", CASES, ids=str)
def test_planned_flops_are_those_counted_and_elementwise_products(format: str, layout: str) -> None:
    layer = made(format, layout, rows=64)
    x = torch.zeros(64, 18, device="meta", dtype=torch.float64)
    products = [s for s in layer.program.steps if isinstance(s, Merge)]
    counted = [line.flops for line, s in zip(layer.program.lines, products, strict=True) if not s.outer]
    assert flops(layer.to("meta"), x) == sum(counted)


METHODS = [
    (HOOI(), 12, "o i0 i1 -> o i0 i1"),
    (TTSVD(), 80, "o i0 i1 -> i0 o i1"),
    (TruncatedSVD(), 80, "o i0 i1 -> (o i0) i1"),
    (SlicedSVD(), 80, "o (i0=2 i1) i2 -> o i0 (i1 i2)"),
]


@pytest.mark.parametrize("method, ranks, layout", METHODS, ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_decomposed_at_full_rank_computes_what_the_dense_one_does(
    method: Any, ranks: int, layout: str, bias: bool
) -> None:
    torch.manual_seed(0)
    dense = nn.Bilinear(8, 10, 12, bias, dtype=torch.float64)
    layer = FactorizedBilinear.from_bilinear(dense, method, ranks, layout)
    x, z = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 10, dtype=torch.float64)
    torch.testing.assert_close(layer(x, z), dense(x, z), rtol=0, atol=1e-12)
    assert replacement(dense) is FactorizedBilinear
    assert (layer.bias is None) == (not bias)
    if layer.bias is not None:
        assert layer.bias.data_ptr() != dense.bias.data_ptr()


@pytest.mark.filterwarnings("ignore::tenfold.core.errors.ConvergenceWarning")
def test_a_fit_of_low_rank_computes_what_its_own_weight_says() -> None:
    torch.manual_seed(0)
    dense = nn.Bilinear(8, 10, 12, dtype=torch.float64)
    layer = FactorizedBilinear.from_bilinear(dense, CPALS(max_steps=3), 4, "o i0 i1 -> o i0 i1")
    x, z = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 10, dtype=torch.float64)
    torch.testing.assert_close(layer(x, z), layer.to_dense()(x, z), rtol=0, atol=1e-12)


def test_two_inputs_export_and_compile_with_a_dynamic_batch() -> None:
    torch.manual_seed(0)
    layer = FactorizedBilinear(8, 10, 12, rank=3, format="tucker", layout="o i0 i1 -> o i0 i1").eval()
    x, z = torch.randn(4, 8), torch.randn(4, 10)
    many = torch.randn(9, 8), torch.randn(9, 10)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(layer, (x, z), dynamic_shapes=({0: batch}, {0: batch})).module()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for inputs in ((x, z), many):
        torch.testing.assert_close(program(*inputs), layer(*inputs))
        torch.testing.assert_close(compiled(*inputs), layer(*inputs))


def test_vmap_over_stacked_layers() -> None:
    layers = [made("cp", "o i0 i1 -> o i0 i1") for _ in range(3)]
    with torch.no_grad():
        for k, layer in enumerate(layers):
            for p in layer.parameters():
                p.mul_(k + 1)
    parameters, _ = torch.func.stack_module_state(layers)
    x = torch.randn(4, 18, dtype=torch.float64)
    found = torch.vmap(lambda own: torch.func.functional_call(layers[0], own, (x,)))(parameters)
    torch.testing.assert_close(found, torch.stack([layer(x) for layer in layers]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = FactorizedBilinear(
        8, 10, 12, rank=3, format="cp", layout="o i0 i1 -> o i0 i1", bias=False, dtype=dtype
    )
    x, z = torch.randn(4, 8).to(dtype), torch.randn(4, 10).to(dtype)
    y = layer(x, z).detach()
    wide = torch.complex128 if dtype.is_complex else torch.float64
    weight = layer.weight.value.map(lambda f: f.detach().to(wide)).dense()
    expected = ((x.to(wide) @ weight) * z.to(wide)).sum(-1).T  # (o, b, j) against (b, j)
    assert y.dtype == dtype
    assert float((y - expected).norm() / expected.norm()) < (1e-5 if y.element_size() > 2 else 0.03)


def test_autocast_and_gradients_of_gradients() -> None:
    layer = made("cp", "o i0 i1 -> o i0 i1")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(layer.float()(torch.randn(3, 18))).all()
    layer = made("tt", "o i0 i1 -> i0 o i1")
    x = torch.randn(2, 18, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_a_fresh_layer_has_the_deviation_of_torch() -> None:
    torch.manual_seed(0)
    dense = nn.Bilinear(48, 40, 32)
    layer = FactorizedBilinear(48, 40, 32, rank=40, format="tucker", layout="o i0 i1 -> o i0 i1")
    assert abs(float(layer.weight.dense().detach().std() / dense.weight.detach().std()) - 1) < 0.15


def test_folding_and_native_modules_leave_it_as_it_is() -> None:
    layer = FactorizedBilinear(8, 10, 12, rank=3, format="cp", layout="o i0 i1 -> o i0 i1")
    inputs = torch.randn(4, 8), torch.randn(4, 10)
    for other in (fold(layer), to_native(layer)):
        assert isinstance(other, FactorizedBilinear) and other is not layer
        torch.testing.assert_close(other(*inputs), layer(*inputs))


@pytest.mark.parametrize("shapes", [((4, 9), (4, 10)), ((4, 8), (4, 9)), ((4, 8), (3, 10)), ((8,), (1, 10))])
def test_inputs_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    layer = FactorizedBilinear(8, 10, 12, rank=3, format="cp", layout="o i0 i1 -> o i0 i1")
    with pytest.raises(ShapeError, match=r"takes \(..., 8\) and \(..., 10\)"):
        layer(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({"layout": "o i -> o i"}, LayoutError, "describes 2"),
        ({"layout": "o h w -> o h w"}, LayoutError, "does not say its role"),
        ({"rank": None}, OptionError, "Give one of the two"),
        ({"in1_features": 0}, OptionError, "features came as"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    settings = {"in1_features": 8, "in2_features": 10, "out_features": 12, "rank": 2, "format": "cp"}
    with pytest.raises(error, match=said):
        FactorizedBilinear(**(settings | {"layout": "o i0 i1 -> o i0 i1"} | options))
