"""Regression and contraction layers compute what their dense twins do, and never make the weight."""

import copy
import io
import math
import pickle
from typing import Any

import pytest
import torch
from bond_cases import ALL_LAWS
from torch import Tensor, nn
from torch.export import Dim

from tenfold.compress import compress, to_dense_
from tenfold.core.errors import LayoutError, OptionError, ShapeError
from tenfold.decompose import CPALS, HOOI, TTSVD, TruncatedSVD
from tenfold.export import fold, to_native
from tenfold.formats import formats
from tenfold.nn import TCL, TRL, FactorizedLinear, tensor_dropout
from tenfold.nn.regression.tcl import contraction_program
from tenfold.ranks import Budget
from tenfold.testing import check_layer

INPUT, OUTPUT = (4, 3, 5), (2, 3)
MODES = {
    "lowrank": "(i0 i1 i2) (o0 o1)",
    "sliced_lowrank": "i0 i1 (i2 o0 o1)",
    "kronecker": "i0 (i1 i2) o0 o1",
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Every case compiles the same functions; torch stops after eight."""
    torch.compiler.reset()


def trl(format: str, **options: Any) -> TRL:
    torch.manual_seed(0)
    settings = {"rank": 2, "modes": MODES.get(format), "dtype": torch.float64} | options
    return TRL(INPUT, OUTPUT, format=format, **settings)


def inputs(*batch: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*batch, *INPUT, dtype=torch.float64)


def contracted(layer: TRL, x: Tensor) -> Tensor:
    """<X, W> + b over the last axes, by definition."""
    y = torch.tensordot(x, layer.tensor(), dims=len(INPUT))
    return y if layer.bias is None else y + layer.bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("format", list(formats))
def test_a_regression_is_the_inner_product_over_all_axes_but_the_batch(format: str, bias: bool) -> None:
    layer = trl(format, bias=bias)
    for batch in ((), (7,), (2, 3), (0,)):
        x = inputs(*batch).requires_grad_()
        y, expected = layer(x), contracted(layer, x)
        assert y.shape == (*batch, *OUTPUT)
        torch.testing.assert_close(y, expected)
        leaves = [x, *layer.parameters()]
        upstream = torch.randn_like(y)
        torch.testing.assert_close(
            torch.autograd.grad(y, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
        )


@pytest.mark.parametrize("format", list(formats))
def test_the_weight_has_the_modes_of_the_input_and_then_the_output(format: str) -> None:
    layer = trl(format)
    if format not in MODES:
        assert layer.weight.value.shape == (*INPUT, *OUTPUT)
        torch.testing.assert_close(layer.weight.value.dense(), layer.tensor())
    assert layer.tensor().shape == (*INPUT, *OUTPUT)
    dense = layer.to_dense()
    assert isinstance(dense.linear, nn.Linear)
    torch.testing.assert_close(dense(inputs(3)), layer(inputs(3)))
    torch.testing.assert_close(dense.to_dense()(inputs(3)), layer(inputs(3)))


@pytest.mark.parametrize("format", ALL_LAWS)
def test_the_linear_layer_inside_obeys_every_law(format: str) -> None:
    layer = trl(format)
    assert isinstance(layer.linear, FactorizedLinear)
    check_layer(layer.linear, inputs(2).flatten(1))


@pytest.mark.parametrize("make", [lambda: trl("tucker"), lambda: tcl()], ids=["TRL", "TCL"])
@pytest.mark.slow
def test_layers_are_copied_saved_compiled_and_exported(make: Any) -> None:
    layer, x = make(), inputs(4)
    expected = layer(x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    other = make()
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(layer.state_dict())
    meta = copy.deepcopy(layer).to("meta")
    meta.load_state_dict(layer.state_dict(), assign=True)
    for twin in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
        other,
        meta,
    ):
        assert torch.equal(twin(x), expected)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (x, torch.cat([x, x]), torch.cat([x, x, x])):
        torch.testing.assert_close(compiled(batch), layer(batch))
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: Dim.DYNAMIC},)).module()
    torch.testing.assert_close(exported(torch.cat([x, x, x])), layer(torch.cat([x, x, x])))


@pytest.mark.parametrize("make", [lambda **o: trl("tt", **o), lambda **o: tcl(**o)], ids=["TRL", "TCL"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex128])
def test_layers_run_in_every_dtype(make: Any, dtype: torch.dtype) -> None:
    layer, x = make(dtype=dtype), inputs(2, 3).to(dtype)
    assert layer(x).dtype == dtype
    stacked = torch.func.vmap(lambda one: layer(one))(x)
    torch.testing.assert_close(stacked, layer(x), rtol=2e-2, atol=2e-2)
    dense = layer.to_dense()
    torch.testing.assert_close(dense(x), layer(x), rtol=5e-2, atol=5e-2)
    if dtype == torch.float32:
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.linear(x.flatten(2)).dtype == torch.bfloat16 if isinstance(layer, TRL) else True
            torch.testing.assert_close(layer(x).float(), dense(x).float(), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("format", list(formats))
def test_the_dense_weight_begins_with_the_deviation_of_a_linear_layer(format: str) -> None:
    torch.manual_seed(0)
    draws = torch.stack([trl_of(format).tensor().detach() for _ in range(40)])
    assert draws.std().item() == pytest.approx((3 * 8 * 9 * 10) ** -0.5, rel=0.2)


def trl_of(format: str) -> TRL:
    return TRL((8, 9, 10), (4, 5), rank=4, format=format, modes=MODES.get(format))


def test_sizes_are_given_by_ranks_fractions_or_parameters() -> None:
    dense = math.prod(INPUT) * math.prod(OUTPUT)
    assert trl("cp", rank=0.5).weight.numel() <= 0.5 * dense
    layer = trl("cp", rank=None, params=100)
    assert 80 < layer.weight.numel() <= 100
    assert isinstance(trl("cp", rank=None).linear, nn.Linear)
    with pytest.raises(OptionError, match="rank=2 and params=100 came"):
        trl("cp", params=100)


def test_whole_model_functions_treat_it_as_a_linear_layer() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), TRL((8, 6, 6), 10)), torch.randn(4, 3, 6, 6)
    small = compress(model, Budget(params=0.4), example=x, preset="weight_svd").model
    assert isinstance(small[1].linear, FactorizedLinear)
    for way in (fold, to_native):
        torch.testing.assert_close(way(small)(x), small(x), rtol=1e-4, atol=1e-5)
    before = small(x)
    to_dense_(small)
    torch.testing.assert_close(small(x), before, rtol=1e-4, atol=1e-5)


def test_dropout_on_a_regression_acts_on_its_output() -> None:
    layer, x = trl("tucker"), inputs(3)
    tensor_dropout(layer.weight, 0.5)
    assert any(not torch.equal(layer(x), layer(x)) for _ in range(3))
    assert torch.equal(layer.eval()(x), layer(x))


def test_shapes_that_do_not_fit_are_refused() -> None:
    layer = trl("cp")
    with pytest.raises(ShapeError, match=r"takes \(..., \(4, 3, 5\)\), but the input is \(2, 60\)"):
        layer(torch.zeros(2, 60))
    with pytest.raises(LayoutError, match='modes came as "i0 o0"'):
        TRL((4, 3), 2, rank=2, modes="i0 o0")
    for shape in ((), (0, 3), (4, -1)):
        with pytest.raises(OptionError, match="input_shape came as"):
            TRL(shape, 2, rank=2)
    with pytest.raises(ShapeError, match="4 inputs and 2 outputs"):
        TRL.over(nn.Linear(4, 2), (2, 3))


# Pretrained heads -------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """The usual end of a network."""

    def __init__(self, channels: int, pool: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(pool)
        self.linear = nn.Linear(channels * math.prod(pool), classes, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(x).flatten(1))


METHODS: list[tuple[Any, Any, str | None]] = [
    (HOOI(), (6, 3, 3, 5), None),
    (HOOI(), None, None),
    (TTSVD(), 1000, None),
    (TruncatedSVD(), 1000, "(i0 i1 i2) o0"),
]


@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (3, 2), (7, 5)])
@pytest.mark.parametrize("method, ranks, modes", METHODS, ids=lambda x: str(x))
def test_a_head_with_pooling_becomes_a_regression_that_computes_the_same(
    method: Any, ranks: Any, modes: str | None, pool: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    head, x = Pooled(6, pool, 5), torch.randn(3, 6, 7, 5, dtype=torch.float64)
    if ranks is not None and not isinstance(ranks, int):
        ranks = (6, *pool, 5)
    ranks = (6, 7, 5, 5) if ranks is None else ranks
    layer = TRL.from_linear(head.linear, (6, 7, 5), method, ranks, pool=pool, modes=modes)
    torch.testing.assert_close(layer(x), head(x))
    layer(x).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())
    assert head.linear.weight.grad is None
    before = head.linear.bias.detach().clone()
    with torch.no_grad():
        layer.linear.bias.add_(1)
    assert torch.equal(head.linear.bias, before), "the source is not touched"


def test_pooled_axes_take_one_rank_and_so_few_parameters() -> None:
    torch.manual_seed(0)
    head, x = Pooled(32, (1, 1), 10), torch.randn(2, 32, 7, 7, dtype=torch.float64)
    layer = TRL.from_linear(head.linear, (32, 7, 7), HOOI(), (10, 1, 1, 10), pool=1)
    torch.testing.assert_close(layer(x), head(x))
    assert layer.weight.numel() == 10 * 10 + 32 * 10 + 7 + 7 + 10 * 10
    torch.testing.assert_close(layer.tensor()[:, 3, 4], head.linear.weight.T / 49)


def test_a_head_on_a_flattened_input_keeps_its_outputs_in_any_shape() -> None:
    head = nn.Linear(60, 6, bias=False, dtype=torch.float64)
    layer = TRL.from_linear(head, INPUT, HOOI(), (4, 3, 5, 2, 3), output_shape=OUTPUT)
    torch.testing.assert_close(layer(inputs(2)), head(inputs(2).flatten(1)).view(2, *OUTPUT))
    assert layer.bias is None


def test_heads_that_do_not_fit_are_refused() -> None:
    head = nn.Linear(6, 5)
    with pytest.raises(ShapeError, match="6 inputs"):
        TRL.from_linear(head, (6, 7, 7), HOOI(), 2)
    with pytest.raises(ShapeError, match=r"pooled to \(6, 2, 2\) came for 6 features"):
        TRL.from_linear(head, (6, 7, 7), HOOI(), 2, pool=2)
    with pytest.raises(OptionError, match="pool came as"):
        TRL.from_linear(head, (6, 7, 7), HOOI(), 2, pool=(0, 1))


# Contraction ------------------------------------------------------------------------------------------------


def tcl(outputs: Any = (2, None, 7), dtype: torch.dtype = torch.float64, **options: Any) -> TCL:
    torch.manual_seed(0)
    return TCL(INPUT, outputs, dtype=dtype, **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [(2, 6, 7), (2, None, 7), (None, None, 2), (9, None, None), (4, 3, 5)])
def test_a_contraction_multiplies_each_mode_by_its_matrix(outputs: Any, bias: bool) -> None:
    layer = tcl(outputs, bias=bias)
    for batch in ((), (4,), (2, 3), (0,)):
        x = inputs(*batch).requires_grad_()
        expected = x
        for k in range(3):
            if outputs[k] is not None:
                matrix = getattr(layer, f"factor_{k}")
                expected = torch.movedim(torch.tensordot(expected, matrix, dims=([k - 3], [1])), -1, k - 3)
        expected = expected if layer.bias is None else expected + layer.bias
        y = layer(x)
        torch.testing.assert_close(y, expected)
        leaves, upstream = [x, *layer.parameters()], torch.randn_like(y)
        torch.testing.assert_close(
            torch.autograd.grad(y, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
        )
    assert len(layer.factors) == sum(n is not None for n in outputs)
    dense = layer.to_dense()
    torch.testing.assert_close(dense(inputs(2)), layer(inputs(2)))


def test_the_order_of_contraction_is_the_cheapest_of_all() -> None:
    from itertools import permutations

    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        sizes, outputs = (tuple(torch.randint(1, 20, (4,), generator=generator).tolist()) for _ in "io")

        def flops(order: tuple[int, ...], sizes: Any = sizes, outputs: Any = outputs) -> int:
            now, total = list(sizes), 0
            for k in order:
                total += 2 * math.prod(now) * outputs[k]
                now[k] = outputs[k]
            return total

        planned = contraction_program(sizes, outputs, (0, 1, 2, 3))
        assert planned.flops == min(map(flops, permutations(range(4))))
        assert set(planned.kinds) == {"linear"}, "no matrix meets another"


def test_the_kronecker_product_begins_with_the_deviation_of_a_linear_layer() -> None:
    torch.manual_seed(0)
    draws = torch.stack([TCL((8, 9, 10), (6, 7, 8)).matrix().detach() for _ in range(30)])
    assert draws.std().item() == pytest.approx((3 * 720) ** -0.5, rel=0.1)
    assert TCL((8, 9, 10), (6, None, 8)).bias.abs().max() <= 80**-0.5


@pytest.mark.parametrize("outputs", [(2, 6, 7), (2, None, 7), (None, 6, None)])
def test_a_kronecker_product_is_found_again_in_its_dense_matrix(outputs: Any) -> None:
    layer = tcl(outputs)
    dense = layer.to_dense().linear
    found = TCL.from_dense(dense, INPUT, outputs, CPALS())
    torch.testing.assert_close(found(inputs(3)), layer(inputs(3)))
    with torch.no_grad():
        dense.weight += 0.02 * torch.randn_like(dense.weight)
    nearest = TCL.from_dense(dense, INPUT, outputs, CPALS(tol=1e-13, max_steps=1000, ridge=0.0))
    error = (nearest.matrix() - dense.weight).norm()
    assert error < (layer.matrix() - dense.weight).norm()
    slopes = torch.autograd.grad(error, nearest.factors)
    assert all(slope.abs().max() < 1e-5 for slope in slopes), "no product near it is nearer"


def test_contractions_that_cannot_be_are_refused() -> None:
    for shapes in (((4, 3), (2,)), ((4, 3), (None, None)), ((4, 0), (2, 2)), ((4, 3), (2, 0))):
        with pytest.raises(OptionError, match="came"):
            TCL(*shapes)
    with pytest.raises(ShapeError, match=r"takes \(..., \(4, 3, 5\)\)"):
        tcl()(torch.zeros(2, 3, 5))
    with pytest.raises(ShapeError, match="came for a weight"):
        TCL.from_dense(nn.Linear(5, 5), (4, 3), (2, 2), CPALS())
    with pytest.raises(OptionError, match="which has not one factor for each mode"):
        TCL.from_dense(nn.Linear(12, 4), (4, 3), (2, 2), HOOI())
