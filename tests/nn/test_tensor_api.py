"""A FactorizedTensor behaves as the dense tensor: made, indexed, added, multiplied, given to torch."""

import contextlib
import copy
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from index_cases import index, tensor_index
from torch import Tensor, nn
from torch.export import Dim

from tenfold.core.errors import LayoutError, ShapeError
from tenfold.decompose import HOOI, TTSVD, TruncatedSVD
from tenfold.formats import CP, General, TensorTrain, formats
from tenfold.nn import (
    DenseFallbackWarning,
    FactorizedConv,
    FactorizedLinear,
    FactorizedTensor,
    FactorizedView,
    TensorIndexError,
)
from tenfold.nn.tensor.index import digits_of
from tenfold.testing.compare import assert_equal
from tenfold.testing.samples import SHAPES, holds

LAYOUTS = {
    "stack of pairs": ("b (o0=4 o1) (i0=2 i1) -> b (o0 i0) (o1 i1)", (3, 12, 10)),
    "digits": ("(o0=4 o1) (i0=2 i1) -> o0 o1 i0 i1", (12, 10)),
    "spatial": ("o i h w -> (i h) (o w)", (4, 3, 2, 3)),
    "slices": ("o (i0=2 i1) -> o i0 i1", (6, 8)),
}


def tensors(name: str, dtype: torch.dtype = torch.float64) -> list[FactorizedTensor]:
    """Tensors of a format, of every order that it has and through every layout that fits it."""
    torch.manual_seed(0)
    made = [
        FactorizedTensor.new(SHAPES[order], 2, name, std=1.0, dtype=dtype)
        for order in (2, 3, 4)
        if holds(formats[name], order)
    ]
    for layout, shape in LAYOUTS.values():
        try:
            made.append(FactorizedTensor.new(shape, 2, name, std=1.0, layout=layout, dtype=dtype))
        except ShapeError:
            continue
    return made


def plain(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else x.dense()


# Making ---------------------------------------------------------------------------------------------------


def test_from_tensor_holds_what_the_method_finds() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5, 4, dtype=torch.float64)
    for method in (TTSVD(), HOOI()):
        made = FactorizedTensor.from_tensor(x, method, 100)
        assert_equal(made.to_tensor(), x, "full ranks")
        assert all(p.requires_grad and p.is_leaf for p in made.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_from_tensor_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = torch.ones(6, 4, dtype=dtype)
    made = FactorizedTensor.from_tensor(x, TruncatedSVD(), 1)
    assert made.dtype == made.dense().dtype == dtype
    assert_equal(made.dense(), x, "a matrix of rank one")


def test_from_tensor_shares_no_memory_and_no_graph_with_its_source() -> None:
    x = torch.ones(4, 5, requires_grad=True)
    made = FactorizedTensor.from_tensor(x, TruncatedSVD(), 1)
    with torch.no_grad():
        x.zero_()
    assert_equal(made.dense(), torch.ones(4, 5), "the source may change")
    made.dense().sum().backward()
    assert x.grad is None


def test_from_tensor_goes_through_a_layout() -> None:
    torch.manual_seed(0)
    x = torch.randn(12, 10, dtype=torch.float64)
    made = FactorizedTensor.from_tensor(x, TTSVD(), 100, layout="(o0=4 o1) (i0=2 i1) -> (o0 i0) (o1 i1)")
    assert made.shape == (12, 10) and made.value.shape == (8, 15)
    assert_equal(made.dense(), x, "full ranks")
    with pytest.raises(LayoutError, match="has an axis of size 12"):
        FactorizedTensor.from_tensor(x, TTSVD(), 2, layout="(o0=5 o1) i -> o0 (o1 i)")


def test_set_refuses_factors_of_other_shapes_and_changes_nothing() -> None:
    x = FactorizedTensor.new((4, 5), 2, "cp")
    before = x.dense().detach().clone()
    with pytest.raises(ShapeError, match=r"factors came with shapes \(\(4, 1\), \(5, 1\)\)"):
        x.set_(CP.random((4, 5), 1, like=torch.zeros(())))
    assert torch.equal(x.dense(), before)


def test_a_view_becomes_a_module_of_its_own() -> None:
    x = FactorizedTensor.new((4, 5, 6), 2, "tt")
    own = FactorizedTensor(x[1].value)
    assert_equal(own.dense(), x.dense()[1], "a slice of its own")
    assert "general" in repr(own) and len(list(own.parameters())) == 3
    twin = copy.deepcopy(own)
    twin.load_state_dict(own.state_dict())
    assert torch.equal(twin.dense(), own.dense())


# Indexing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", formats)
def test_indexing_is_that_of_the_dense_tensor(name: str) -> None:
    draw = random.Random(name)
    followed = 0
    for x in tensors(name):
        dense = x.dense().detach()
        for _ in range(50):
            at = index(dense.shape, draw)
            try:
                expected = dense[tensor_index(at)]
            except IndexError:
                with pytest.raises(TensorIndexError):
                    x[at]
                continue
            if expected.numel() == 0:  # torch looks at no numbers then, be they out of range or not
                with contextlib.suppress(TensorIndexError):
                    assert x[at].shape == expected.shape
                continue
            found = x[at]
            assert found.shape == expected.shape, f"{x}[{at}]"
            assert_equal(plain(found), expected, f"{x}[{at}]")
            followed += 1
    assert followed > 40


@pytest.mark.parametrize("name", formats)
def test_slices_and_rows_of_modes_keep_the_format(name: str) -> None:
    for x in tensors(name):
        if x.layout is None:
            for at in [slice(1, None), (..., slice(0, 3, 2)), [0, -1, 0], torch.arange(x.shape[0]) % 2 == 0]:
                assert type(x[at].value) is formats[name]


def test_rows_of_the_first_digit_keep_the_digits() -> None:
    x = FactorizedTensor.new((12, 10), 2, "tt", layout="(o0=4 o1) (i0=2 i1) -> (o0 i0) (o1 i1)")
    assert [tuple(x[3:9].seen.network.extent(g)) for g in x[3:9].seen.groups] == [(2, 3), (2, 5)]
    assert [tuple(x[2:9].seen.network.extent(g)) for g in x[2:9].seen.groups] == [(7,), (2, 5)]


def test_views_are_indexed_again() -> None:
    x = FactorizedTensor.new((4, 5, 6), 3, "tucker", dtype=torch.float64)
    assert_equal(x[1:][:, [0, 2]][..., 1].dense(), x.dense()[1:][:, [0, 2]][..., 1], "thrice")
    assert_equal(x[1][2:, None][0].dense(), x.dense()[1][2:, None][0], "after a number")


@pytest.mark.parametrize("name", formats)
def test_single_entries_and_rows_one_by_one(name: str) -> None:
    for x in tensors(name):
        where = torch.stack([torch.randint(-n, n, (7,)) for n in x.shape], 1)
        assert_equal(x.at(where), x.dense()[tuple(where.unbind(1))], "entries")
        assert len(x) == x.shape[0]
        assert_equal(torch.stack([plain(row) for row in x]), x.dense(), "rows one by one")
        assert isinstance(x[(0,) * x.ndim], Tensor) and x[(0,) * x.ndim].ndim == 0


@pytest.mark.parametrize("layout", [None, "(a0=2 a1) b -> (a0 b) a1"])
@pytest.mark.parametrize(
    "at, message",
    [
        (4, "index 4 is out of range for axis 0 of a tensor of shape (4, 5)"),
        ((0, -6), "index -6 is out of range for axis 1"),
        ([0, 4], "numbers out of range for a tensor of shape (4, 5)"),
        (torch.tensor([-5]), "numbers out of range"),
        ((0, 0, 0), "an index with 3 entries came for a tensor of shape (4, 5)"),
        ((..., ...), "and several ..."),
        (torch.tensor([0.5]), "an array of torch.float32 is no index"),
        (1.0, "1.0 is no index"),
        ("o", "'o' is no index"),
        (torch.ones(5, dtype=torch.bool), "a mask of shape (5,) came for axes of sizes (4,)"),
        (([0, 1], [0, 1, 2]), "index arrays came with the shapes (2,), (3,), which do not broadcast"),
        (slice(None, None, -1), "a slice came with step -1"),
    ],
)
def test_what_is_no_index_is_an_index_error(at: Any, message: str, layout: str | None) -> None:
    with pytest.raises(IndexError) as error:
        FactorizedTensor.new((4, 5), 2, "lowrank", layout=layout)[at]
    assert message in str(error.value)


def test_digits_of_numbers_out_of_range_are_out_of_range() -> None:
    first, second = digits_of(torch.arange(-20, 20), (3, 4))
    inside = [-12 <= n < 12 for n in range(-20, 20)]
    assert [0 <= int(d) < 3 for d in first] == inside
    assert all(0 <= int(d) < 4 for d in second)


@pytest.mark.parametrize("name", formats)
def test_gradients_flow_through_slices(name: str) -> None:
    for x in tensors(name):
        factors = list(x.parameters())
        at = (slice(1, None), [0, 0, 1])
        weights = torch.randn(x.dense()[at].shape, dtype=torch.float64)
        found = torch.autograd.grad((x[at].dense() * weights).sum(), factors)
        wanted = torch.autograd.grad((x.dense()[at] * weights).sum(), factors)
        for a, b in zip(found, wanted, strict=True):
            assert_equal(a, b, f"gradient of {name}")


# Arithmetic -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", formats)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_sums_and_multiples_stay_factorized(name: str, dtype: torch.dtype) -> None:
    for x in tensors(name, dtype):
        y = copy.deepcopy(x)
        y.set_(y.value * 0.3)
        a, b = x.dense(), y.dense()
        number = torch.tensor(0.7, dtype=dtype)
        cases = [
            (x + y, a + b), (x - y, a - b), (-x, -a), (x * 3, a * 3), (2.5 * x, 2.5 * a), (x / 7, a / 7),
            (x * np.float64(2), a * 2), (x * np.int64(2), a * 2), (x * number, a * number),
            (x / number, a / number), (sum([x, y, x]), a + b + a), (x * y, a * b),
        ]  # fmt: skip
        for found, expected in cases:
            assert isinstance(found, FactorizedView) and type(found.value) is formats[name]
            assert found.shape == expected.shape
            assert_equal(found.dense(), expected, name)


@pytest.mark.parametrize("name", formats)
def test_arithmetic_with_plain_tensors_is_dense(name: str) -> None:
    for x in tensors(name):
        a, t = x.dense(), torch.randn(tuple(x.shape), dtype=torch.float64)
        row = t[0]
        cases = [
            (x + t, a + t), (t + x, a + t), (x - t, a - t), (t - x, t - a), (x * t, a * t), (t * x, a * t),
            (x / t, a / t), (t / x, t / a), (x + 1, a + 1), (1 - x, 1 - a), (x + row, a + row),
        ]  # fmt: skip
        for found, expected in cases:
            assert isinstance(found, Tensor)
            assert_equal(found, expected, name)


def test_tensors_of_two_formats_multiply_factorized_and_add_dense() -> None:
    x, y = (FactorizedTensor.new((4, 5, 6), 2, name, std=1.0, dtype=torch.float64) for name in ("cp", "tt"))
    assert_equal((x * y).dense(), x.dense() * y.dense(), "entrywise")
    assert isinstance((x * y).value, General)
    assert isinstance(x + y, Tensor)
    assert_equal(x + y, x.dense() + y.dense(), "a sum of two formats")
    with pytest.raises(TypeError):
        x + "y"  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="must match the size"):
        x + x[1:, :3]


def test_tensors_seen_through_two_layouts_meet_digit_by_digit() -> None:
    digits, pairs = "(o0=4 o1) (i0=2 i1) -> o0 o1 i0 i1", "(a=4 b) (c=2 d) -> (a c) (b d)"
    x = FactorizedTensor.new((12, 10), 2, "cp", layout=digits, std=1.0, dtype=torch.float64)
    y = FactorizedTensor.new((12, 10), 3, "tt", layout=pairs, std=1.0, dtype=torch.float64)
    z = FactorizedTensor.new((12, 10), 3, "lowrank", std=1.0, dtype=torch.float64)
    assert_equal((x * y).dense(), x.dense() * y.dense(), "entrywise")
    for other in (y, z):
        assert_equal(x.inner(other), (x.dense() * other.dense()).sum(), "inner")
    assert isinstance(x * y, FactorizedView) and isinstance(x * z, Tensor)
    assert_equal(y.T[3].dense(), y.dense()[:, 3], "a column")
    assert_equal((y.T + y.T).dense(), 2 * y.dense().T, "a sum of transposed ones")


@pytest.mark.parametrize("name", formats)
def test_inner_products_norms_and_mode_products_are_the_dense_ones(name: str) -> None:
    for x in tensors(name, torch.complex128):
        a = x.dense()
        t = torch.randn(tuple(x.shape), dtype=torch.complex128)
        assert_equal(x.inner(t), (a.conj() * t).sum(), "with a plain tensor")
        assert_equal(x.inner(x * 2j), (a.conj() * a * 2j).sum(), "with another")
        assert_equal(x.norm(), a.norm(), "norm")
        for k, n in enumerate(x.shape):
            matrix = torch.randn(3, n, dtype=torch.complex128)
            expected = torch.tensordot(a, matrix, ([k], [1])).movedim(-1, k)
            assert_equal(x.mode_dot(matrix, k).dense(), expected, f"mode {k} of {x}")
            assert_equal(x.mode_dot(matrix[0], k - x.ndim).dense(), expected.select(k, 0), f"mode {k} of {x}")
    with pytest.raises(ShapeError, match=r"axis 0 has size \d+, but the operand has shape \(2,\)"):
        x.mode_dot(torch.ones(2), 0)
    with pytest.raises(ShapeError, match="inner product of shapes"):
        x.inner(torch.ones(2))


def test_the_gradient_of_arithmetic_is_right() -> None:
    x = FactorizedTensor.new((3, 4), 2, "lowrank", std=1.0, dtype=torch.float64)

    def value(left: Tensor, right: Tensor) -> Tensor:
        y = FactorizedView(x.value.with_factors([left, right]))
        z = (y * y - y / 3)[1:, [0, 2, 2]] @ y.T[:3]
        return torch.cat([z.dense().ravel(), y.norm()[None], y.inner(y[:])[None]])

    assert torch.autograd.gradcheck(value, [p.detach().clone().requires_grad_() for p in x.parameters()])


# Products of matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", formats)
def test_products_with_plain_matrices_are_the_dense_ones(name: str) -> None:
    for x in tensors(name):
        a = x.dense()
        m, n = x.shape[-2:]
        lefts = [(m,), (3, m), (2, 3, m), (*x.shape[:-2], 3, m)]
        rights = [(n,), (n, 3), (2, n, 3), (*x.shape[:-2], n, 3)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for shape in lefts:
                t = torch.randn(shape, dtype=torch.float64)
                if x.ndim == 2 or len(shape) != 3:
                    for found in (t @ x, torch.matmul(t, x)):
                        assert_equal(found, t @ a, f"{shape} @ {x}")
            for shape in rights:
                t = torch.randn(shape, dtype=torch.float64)
                if x.ndim == 2 or len(shape) != 3:
                    for found in (x @ t, torch.matmul(x, t)):
                        assert_equal(found, a @ t, f"{x} @ {shape}")


def test_products_run_factor_by_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    x = FactorizedTensor.new((64, 48), 2, "lowrank", std=1.0)
    a, t = x.dense(), torch.randn(5, 64)
    monkeypatch.setattr(FactorizedTensor, "dense", None)
    assert_equal(t @ x, t @ a, "left")
    assert_equal(x.T @ t.T, a.T @ t.T, "right")
    assert_equal(F.linear(t, x.T), t @ a, "linear")
    assert_equal(F.linear(t, weight=x.T, bias=torch.ones(48)), t @ a + 1, "linear by name")
    assert (x.T @ x).shape == (48, 48) and isinstance(x.T @ x, FactorizedView)


def test_matrices_of_which_neither_is_plain_are_joined_by_their_digits() -> None:
    pairs = "(o0=4 o1) (i0=2 i1) -> (o0 i0) (o1 i1)"
    x = FactorizedTensor.new((12, 10), 2, "tt", layout=pairs, std=1.0, dtype=torch.float64)
    y = FactorizedTensor.new((12, 10), 3, "lowrank", std=1.0, dtype=torch.float64)
    assert_equal((x @ x.T).dense(), x.dense() @ x.dense().T, "joined")
    assert isinstance(x @ y.T, Tensor)
    assert_equal(x @ y.T, x.dense() @ y.dense().T, "by their digits not")
    with pytest.raises(RuntimeError):
        x @ x
    with pytest.raises(TypeError):
        x @ 3  # type: ignore[operator]


def test_axes_are_permuted_over_the_same_factors() -> None:
    x = FactorizedTensor.new((4, 5, 6), 2, "tr", std=1.0, dtype=torch.float64)
    a = x.dense()
    cases = [(x.T, a.permute(2, 1, 0)), (x.mT, a.mT), (x.permute(1, -1, 0), a.permute(1, 2, 0))]
    for found, expected in [*cases, (x.transpose(0, 2), a.transpose(0, 2)), (x[0].t(), a[0].t())]:
        assert_equal(found.dense(), expected, "permuted")
    assert type(x.T.value) is type(x.value)
    assert_equal(x.T[2, [0, 1]].dense(), a.permute(2, 1, 0)[2, [0, 1]], "indexed")
    with pytest.raises(ValueError, match="Name every axis exactly once"):
        x.permute(0, 1, 1)


# Functions of torch ---------------------------------------------------------------------------------------


def test_functions_of_torch_take_it_in_any_place() -> None:
    x = FactorizedTensor.new((4, 5), 2, "cp", std=1.0, dtype=torch.float64)
    a, t = x.dense(), torch.randn(4, 5, dtype=torch.float64)
    cases = [
        (torch.cat([x, x]), torch.cat([a, a])),
        (torch.stack((t, x, x[:]), dim=1), torch.stack((t, a, a), dim=1)),
        (torch.add(t, other=x), t + a),
        (torch.add(x, x), a + a),
        (torch.einsum("ij,kj->ik", x, t), torch.einsum("ij,kj->ik", a, t)),
        (torch.where(t > 0, x, t), torch.where(t > 0, a, t)),
        (torch.linalg.norm(x), torch.linalg.norm(a)),
        (torch.sum(x[1:], dim=0), a[1:].sum(0)),
        (F.relu(x), F.relu(a)),
        (torch.matmul(x, other=t.T), a @ t.T),
    ]
    for found, expected in cases:
        assert isinstance(found, Tensor)
        assert_equal(found, expected, "a function of torch")


def test_only_weights_of_layers_warn_when_they_are_made_dense() -> None:
    layer = FactorizedLinear(6, 4, rank=2, bias=False)
    for use in (
        lambda w: torch.cat([w, w]),
        lambda w: torch.add(torch.ones(4, 6), other=w),
        lambda w: w + 1,
        lambda w: torch.ones(4, 6) * w,
    ):
        with pytest.warns(DenseFallbackWarning, match="makes a factorized weight dense at each call"):
            use(layer.weight)
    x = torch.randn(3, 6)
    assert_equal(F.linear(x, layer.weight), layer(x), "linear")  # type: ignore[arg-type]
    assert_equal(x @ layer.weight.T, layer(x), "a product")
    assert_equal((layer.weight * 2 + layer.weight).dense(), 3 * layer.dense_weight(), "a sum")


def test_kernels_of_convolutions_are_sliced_and_multiplied() -> None:
    conv = FactorizedConv(
        6, 8, (3, 3), rank=3, format="cp", layout="o i h w -> o i (h w)", dtype=torch.float64
    )
    w, a = conv.weight, conv.dense_weight()
    assert_equal(w[2:, [0, 1], 1].dense(), a[2:, [0, 1], 1], "a slice of a kernel")
    assert_equal((w - 0.5 * w).dense(), a / 2, "arithmetic")
    assert_equal(
        w.mode_dot(torch.ones(2, 3, dtype=torch.float64), 2).dense(), a.sum(2, True).repeat(1, 1, 2, 1), "h"
    )


@pytest.mark.parametrize("name", formats)
@pytest.mark.slow
def test_dense_compiles_in_one_graph(name: str) -> None:
    for x in tensors(name)[-2:]:
        torch.compiler.reset()
        compiled = torch.compile(lambda t, x=x: x.dense() * t, fullgraph=True, backend="aot_eager")
        t = torch.randn(tuple(x.shape), dtype=torch.float64)
        assert_equal(compiled(t), x.dense() * t, "compiled")
        found, wanted = (
            torch.autograd.grad(y.sum(), list(x.parameters())) for y in (compiled(t), x.dense() * t)
        )
        for a, b in zip(found, wanted, strict=True):
            assert_equal(a, b, "compiled, gradient")


@pytest.mark.slow
def test_a_compiled_function_tells_tensors_apart_that_differ_in_their_layout_only() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x.dense() * 1, fullgraph=True, backend="aot_eager")
    for layout in ("(a=4 b) c -> a b c", "(a=4 b) c -> b a c", "(a=4 b) c -> c b a"):
        x = FactorizedTensor.new((16, 4), 2, "cp", layout=layout, std=1.0)
        assert_equal(compiled(x), x.dense(), layout)


@pytest.mark.slow
def test_products_compile_in_one_graph() -> None:
    torch.compiler.reset()
    w = FactorizedTensor.new((6, 4), 2, "cp", std=1.0, dtype=torch.float64)
    compiled = torch.compile(lambda x: F.linear(x, w) + x @ w.dense().T, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 4, dtype=torch.float64)
    assert_equal(compiled(x), 2 * x @ w.dense().T, "compiled")
    layer = FactorizedLinear(4, 6, rank=2, dtype=torch.float64)
    compiled = torch.compile(lambda x: F.linear(x, layer.weight), fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x) + layer.bias, layer(x), "compiled, by the program of the layer")


class Sliced(nn.Module):
    """A linear layer by a slice of a tensor, and a product by another."""

    def __init__(self) -> None:
        super().__init__()
        self.w = FactorizedTensor.new((6, 5, 4), 2, "tt", std=1.0, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        part = F.linear(x, (2 * self.w)[[3, 0], 1:3].dense().flatten(0, 1))
        return part + (x @ self.w.mT[0])[..., :1] + torch.linalg.norm(self.w)


def test_slices_are_exported_with_a_dynamic_batch() -> None:
    model = Sliced()
    program = torch.export.export(
        model, (torch.randn(3, 4, dtype=torch.float64),), dynamic_shapes=({0: Dim.DYNAMIC},)
    )
    for batch in (3, 7):
        x = torch.randn(batch, 4, dtype=torch.float64)
        assert_equal(program.module()(x), model(x), "exported")


def test_functional_calls_and_vmap_go_through_slices() -> None:
    model, x = Sliced(), torch.randn(2, 3, 4, dtype=torch.float64)
    doubled = {name: 2 * p for name, p in model.named_parameters()}
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for p in expected.parameters():
            p.mul_(2)
    assert_equal(torch.func.functional_call(model, doubled, (x,)), expected(x), "other factors")
    assert_equal(torch.func.vmap(model)(x), torch.stack([model(x[0]), model(x[1])]), "vmap")


def test_a_train_of_many_modes_is_never_made_dense() -> None:
    x = FactorizedTensor(TensorTrain.random((2,) * 50, 3, like=torch.zeros((), dtype=torch.float64), std=1.0))
    y = (x + x * 2)[(1,) * 48]
    assert y.shape == (2, 2)
    assert_equal(y.dense(), 3 * x[(1,) * 48].dense(), "the last two modes")
    assert_equal((x - x).norm() / x.norm(), torch.zeros(()), "nothing", 1e-6)
