"""Complex tensors and layers, with native complex parameters and with pairs of reals."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.decompose import CPALS, HOOI, TTSVD
from tenfold.formats import formats
from tenfold.nn import (
    ComplexPairs,
    FactorizedConv,
    FactorizedLinear,
    FactorizedTensor,
    TensorizedPairs,
    TensorizedTensor,
    in_pairs_,
    init,
    tensor_dropout,
)
from tenfold.testing.compare import assert_equal
from tenfold.testing.layers import LAWS, check_compile, check_safetensors
from tenfold.testing.samples import SHAPES, holds

KINDS = [FactorizedTensor, ComplexPairs]


def made(kind: type[FactorizedTensor], name: str) -> list[FactorizedTensor]:
    torch.manual_seed(0)
    return [
        kind.new(SHAPES[order], 2, name, std=1.0, dtype=torch.complex128)
        for order in (2, 3, 4)
        if holds(formats[name], order)
    ]


@pytest.mark.parametrize("name", formats)
@pytest.mark.parametrize("kind", KINDS)
def test_complex_tensors_have_complex_entries_of_the_deviation(kind: Any, name: str) -> None:
    for x in made(kind, name):
        dense = x.to_tensor().detach()
        assert dense.dtype == x.dtype == torch.complex128
        assert float((dense - dense.mean()).abs().square().mean()) == pytest.approx(1.0)
        assert float(dense.real.norm() / dense.imag.norm()) == pytest.approx(1.0, abs=0.9)
        wanted = torch.float64 if kind is ComplexPairs else torch.complex128
        assert {p.dtype for p in x.parameters()} == {wanted}


@pytest.mark.parametrize("method", [TTSVD(), HOOI(), CPALS()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_from_tensor_keeps_the_imaginary_part(kind: Any, method: Any) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(6, 2, dtype=torch.complex128), torch.randn(2, 20, dtype=torch.complex128)
    x = (left @ right).reshape(6, 4, 5)
    fitted = kind.from_tensor(x, method, 20)
    assert_equal(fitted.dense(), x, "a complex tensor", 1e-6)
    assert fitted.dense().is_complex()


@pytest.mark.parametrize("name", formats)
def test_pairs_are_the_native_tensor(name: str) -> None:
    for native in made(FactorizedTensor, name):
        pairs = ComplexPairs.of(native)
        assert_equal(pairs.dense(), native.dense(), "dense")
        assert_equal(pairs[1:, [0, 2]].dense(), native.dense()[1:, [0, 2]], "a slice")
        assert_equal((pairs + 1j * pairs).dense(), native.dense() * (1 + 1j), "a sum")
        for y in (pairs, native):
            (y.dense() * torch.arange(y.dense().numel()).reshape(y.shape)).abs().square().sum().backward()
        for a, b in zip(pairs.parameters(), native.parameters(), strict=True):
            assert_equal(torch.view_as_complex(a.grad), b.grad, "gradients")


@pytest.mark.parametrize("name", formats)
def test_the_gradient_in_pairs_is_that_of_finite_differences(name: str) -> None:
    x = made(ComplexPairs, name)[0]
    names = [n for n, _ in x.named_parameters()]

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = x

        def forward(self) -> Tensor:
            return torch.view_as_real(self.x.dense())

    def dense(*pairs: Tensor) -> Tensor:
        given = {f"x.{n}": p for n, p in zip(names, pairs, strict=True)}
        found: Tensor = torch.func.functional_call(Dense(), given, ())
        return found

    assert torch.autograd.gradcheck(dense, [p.detach().clone().requires_grad_() for p in x.parameters()])


def test_copies_and_states_keep_the_pairs() -> None:
    x = made(ComplexPairs, "tucker")[1]
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), torch.load(file, weights_only=False)):
        assert type(twin) is ComplexPairs
        assert_equal(twin.dense(), x.dense(), "a copy")
    empty = copy.deepcopy(x).to("meta")
    empty.load_state_dict({key: t.contiguous() for key, t in x.state_dict().items()}, assign=True)
    assert_equal(empty.dense(), x.dense(), "meta and assign")
    assert all(not t.is_complex() for t in x.state_dict().values())


def test_a_state_with_complex_factors_comes_in_as_pairs() -> None:
    native = made(FactorizedTensor, "cp")[1]
    twin = init.normal_(ComplexPairs.of(native))
    twin.load_state_dict(native.state_dict())
    assert_equal(twin.dense(), native.dense(), "a state of complex factors")
    assert all(p.is_complex() for p in native.state_dict().values())


def test_values_are_set_in_place_and_precision_changes() -> None:
    x = made(ComplexPairs, "tt")[1]
    before = [p.data_ptr() for p in x.parameters()]
    x.set_(x.value * 2)
    init.kaiming_normal_(x)
    assert [p.data_ptr() for p in x.parameters()] == before
    with pytest.raises(ShapeError, match="factors came with shapes"):
        x.set_((x + x).value)
    assert x.float().dense().dtype == torch.complex64


def test_pairs_that_do_not_lie_together_are_read_all_the_same() -> None:
    x = ComplexPairs.new((4, 5, 6), 2, "tt", std=1.0)
    dense = x.dense().detach().clone()
    x.to(memory_format=torch.channels_last)
    for p in x.parameters():
        p.data = p.data.transpose(0, -1).contiguous().transpose(0, -1)
    assert_equal(x.dense(), dense, "another order in memory")


def test_tensorized_matrices_of_pairs() -> None:
    x = TensorizedPairs.new((3, (4, 3), (2, 5)), 2, "tt", std=1.0)
    assert x.dtype == torch.complex64 and x.tensorized_shape == (3, (4, 3), (2, 5))
    t = torch.randn(3, 10, 2, dtype=torch.complex64)
    assert_equal(x @ t, x.dense() @ t, "a product")
    assert_equal(x[1, 2:5, [0, -1]].dense(), x.dense()[1, 2:5, [0, -1]], "rows and columns")
    w = torch.randn(12, 10, dtype=torch.complex128)
    fitted = TensorizedPairs.from_matrix(w, (4, 3), (2, 5), TTSVD(), 100)
    assert_equal(fitted.to_matrix(), w, "from a matrix")


def test_real_factors_are_refused() -> None:
    with pytest.raises(OptionError, match=r"ComplexPairs came with factors of torch\.float32"):
        ComplexPairs.new((4, 5), 2, "cp", dtype=torch.float32)


# Layers ---------------------------------------------------------------------------------------------------

LAYERS: dict[str, Any] = {
    "linear": (
        lambda **o: FactorizedLinear(
            12, 18, rank=3, format="tt", layout="(o0=3 o1) (i0=2 i1) -> (o0 i0) (o1 i1)", **o
        ),
        (3, 12),
    ),
    "conv": (
        lambda **o: FactorizedConv(
            4, 6, (3, 3), rank=3, format="tucker", layout="o i h w -> o i (h w)", padding=1, **o
        ),
        (2, 4, 5, 6),
    ),
    "conv1d": (
        lambda **o: FactorizedConv(4, 6, (3,), rank=3, format="cp", layout="o i w -> o i w", **o),
        (2, 4, 7),
    ),
}


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
def test_native_complex_layers_obey_the_laws(which: str, bias: bool) -> None:
    build, shape = LAYERS[which]
    layer, x = build(bias=bias, dtype=torch.complex128), torch.randn(shape, dtype=torch.complex128)
    torch.compiler.reset()
    for law in LAWS:
        # safetensors has no complex numbers of 128 bits, and a gradient of a complex sum is not defined
        if law not in (check_safetensors, check_compile):
            law(layer, x)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (x, torch.cat([x, x])):
        assert_equal(compiled(batch), layer(batch), "compiled")
    found, wanted = (
        torch.autograd.grad(f(x).abs().sum(), list(layer.parameters())) for f in (compiled, layer)
    )
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, "compiled, gradient")
    check_safetensors(build(bias=bias, dtype=torch.complex64), x.to(torch.complex64))


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
def test_layers_of_pairs_compute_the_same_and_have_real_parameters_only(which: str, bias: bool) -> None:
    build, shape = LAYERS[which]
    native = build(bias=bias, dtype=torch.complex128)
    model = nn.Sequential(copy.deepcopy(native), nn.Identity())
    assert in_pairs_(model) is model
    assert all(p.dtype == torch.float64 for p in model.parameters())
    x = torch.randn(shape, dtype=torch.complex128)
    assert_equal(model(x), native(x), "pairs")
    for y in (model, native):
        y(x).abs().square().sum().backward()
    if bias:
        gradient = torch.view_as_complex(model[0].bias_pairs.grad)
        assert_equal(gradient, native.bias.grad, "gradient of the bias")
    weights = zip(model[0].weight.parameters(), native.weight.parameters(), strict=True)
    for a, b in weights:
        assert_equal(torch.view_as_complex(a.grad), b.grad, "gradients")
    assert_equal(model[0].to_dense()(x), native(x), "to_dense")


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.slow
def test_layers_of_pairs_are_copied_stored_compiled_and_exported(which: str) -> None:
    build, shape = LAYERS[which]
    layer = in_pairs_(build(dtype=torch.complex128))
    x = torch.randn(shape, dtype=torch.complex128)
    y = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(twin) is type(layer) and isinstance(twin, type(build()))
        assert_equal(twin(x), y, "a copy")
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in layer.parameters()}
    state = {k: torch.zeros_like(v) for k, v in layer.state_dict().items()}
    zero = copy.deepcopy(layer)
    zero.load_state_dict(state)
    assert not zero(x).any()
    zero.load_state_dict(layer.state_dict())
    assert_equal(zero(x), y, "a state")
    torch.compiler.reset()
    assert_equal(torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)(x), y, "compiled")
    both = torch.cat([x, x])
    program = torch.export.export(copy.deepcopy(layer).eval(), (both,), dynamic_shapes=({0: Dim.DYNAMIC},))
    assert_equal(program.module()(torch.cat([both, x])), layer(torch.cat([both, x])), "exported")


def test_pairs_train_with_any_optimizer() -> None:
    torch.manual_seed(0)
    layer = in_pairs_(FactorizedLinear(6, 4, rank=4, dtype=torch.complex64))
    x, w = torch.randn(64, 6, dtype=torch.complex64), torch.randn(4, 6, dtype=torch.complex64)
    optimizer = torch.optim.Adam(layer.parameters(), 0.03)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = (layer(x) - x @ w.T).abs().square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-2 * losses[0]


def test_shared_tensors_stay_shared_and_real_ones_stay_as_they_are() -> None:
    a, b = (FactorizedLinear(6, 6, rank=2, bias=False, dtype=torch.complex64) for _ in range(2))
    b.weight = a.weight
    real = FactorizedLinear(6, 6, rank=2)
    kept = real.weight
    model = in_pairs_(nn.ModuleList([a, b, real, nn.Linear(2, 2)]))
    assert model[0].weight is model[1].weight and isinstance(model[0].weight, ComplexPairs)
    assert model[2].weight is kept and in_pairs_(model) is model
    alone = in_pairs_(TensorizedTensor.new(((4, 3), (2, 5)), 2, "cp", dtype=torch.complex64))
    assert type(alone) is TensorizedPairs


def test_tensors_that_something_acts_on_are_refused_and_nothing_is_changed() -> None:
    first, second = (FactorizedLinear(6, 6, rank=2, dtype=torch.complex64) for _ in range(2))
    tensor_dropout(second, 0.5)
    model = nn.Sequential(first, second)
    with pytest.raises(UnsupportedError, match="cannot be turned into pairs of reals"):
        in_pairs_(model)
    assert type(first.weight) is FactorizedTensor and first.bias.is_complex()
