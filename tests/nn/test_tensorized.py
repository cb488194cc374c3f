"""Tensorized matrices are the matrices that they stand for; sizes of rows and columns split evenly."""

import copy
import math
import random
from typing import Any

import pytest
import torch
from index_cases import index, tensor_index
from torch import Tensor

from tenfold.core.errors import LayoutError, OptionError, RankError, ShapeError, UnknownNameError
from tenfold.core.layout import Layout
from tenfold.core.tensorized_shape import padded, split
from tenfold.decompose import CPALS, HOOI, HTSVD, TRSVD, TTSVD, KroneckerSVD, SlicedSVD, TruncatedSVD
from tenfold.formats import formats
from tenfold.nn import FactorizedView, TensorIndexError, TensorizedTensor, get_tensorized_shape
from tenfold.nn.tensor.tensorized import tensorized_layout
from tenfold.testing.compare import assert_equal

SHAPES: list[tuple[Any, ...]] = [
    ((4, 3), (2, 5)),
    (3, (4, 3), (2, 5)),
    ((2,), (4, 4), (4, 4)),
    (2, 3, (2, 2, 3), (3, 2, 2)),
    ((2, 2, 3), (3, 4)),
]


def matrix(name: str, shape: tuple[Any, ...]) -> TensorizedTensor:
    torch.manual_seed(0)
    return TensorizedTensor.new(shape, 2, name, std=1.0, dtype=torch.float64)


def plain(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else x.to_matrix()


@pytest.mark.parametrize("name", formats)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_format_holds_matrices_and_stacks_of_them(name: str, shape: tuple[Any, ...]) -> None:
    x = matrix(name, shape)
    sizes = tuple(math.prod(s) if isinstance(s, tuple) else s for s in shape)
    assert x.shape == sizes and x.to_matrix().shape == sizes and x.ndim == len(shape)
    assert_equal(x.dense().std(correction=0), torch.ones(()), "the deviation asked for")
    twin = copy.deepcopy(x)
    twin.load_state_dict(x.state_dict())
    assert torch.equal(twin.dense(), x.dense())
    assert x.tensorized_shape[-2:] == shape[-2:]


@pytest.mark.parametrize("name", formats)
def test_rows_and_columns_are_indexed_as_those_of_the_matrix(name: str) -> None:
    draw = random.Random(name)
    for shape in SHAPES:
        x = matrix(name, shape)
        dense = x.dense().detach()
        for at in [(slice(None), 2), (2, 3), (1, slice(None)), ([0, 1], [1, 0]), (slice(1, None, 3),)]:
            assert_equal(plain(x[..., *at]), dense[..., *at], f"{x}[..., {at}]")
        for _ in range(20):
            at = index(dense.shape, draw)
            try:
                expected = dense[tensor_index(at)]
            except IndexError:
                continue
            if expected.numel():
                assert x[at].shape == expected.shape
                assert_equal(plain(x[at]), expected, f"{x}[{at}]")


@pytest.mark.parametrize("name", formats)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_with_matrices_are_the_dense_ones(name: str, shape: tuple[Any, ...]) -> None:
    x = matrix(name, shape)
    a = x.dense()
    for size in ((a.shape[-1],), (a.shape[-1], 3), (*a.shape[:-2], a.shape[-1], 3)):
        t = torch.randn(size, dtype=torch.float64)
        assert_equal(x @ t, a @ t, f"{x} @ {tuple(t.shape)}")
        t = t.mT if t.ndim > 1 else t
        assert_equal(t @ x.mT, t @ a.mT, f"{tuple(t.shape)} @ {x}")


@pytest.mark.parametrize("name", formats)
def test_gradients_of_products_are_the_dense_ones(name: str) -> None:
    for shape in SHAPES[:3]:
        x = matrix(name, shape)
        t = torch.randn(*x.shape[:-2], x.shape[-1], 3, dtype=torch.float64)
        factors = list(x.parameters())
        found, wanted = (torch.autograd.grad((y @ t).square().sum(), factors) for y in (x, x.dense()))
        for a, b in zip(found, wanted, strict=True):
            assert_equal(a, b, f"gradient of {x}")


METHODS = [TTSVD(), HOOI(), TRSVD(), HTSVD(), TruncatedSVD(), KroneckerSVD(), SlicedSVD()]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("stack", [(), (3,)])
def test_from_matrix_at_full_ranks_is_exact(method: Any, stack: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    w = torch.randn(*stack, 12, 10, dtype=torch.float64)
    x = TensorizedTensor.from_matrix(w, (4, 3), (2, 5), method, 1000)
    assert_equal(x.to_matrix(), w, "full ranks")
    assert x.tensorized_shape == (*stack, (4, 3), (2, 5))


def test_from_matrix_takes_any_layout_and_dtype() -> None:
    w = torch.ones(12, 10, dtype=torch.bfloat16)
    layout = "(o0=4 o1) (i0=2 i1) -> o0 o1 i0 i1"
    x = TensorizedTensor.from_matrix(w, (4, 3), (2, 5), CPALS(), 1, layout=layout)
    assert str(x.layout) == str(Layout.parse(layout).bind((12, 10))) and x.dtype == torch.bfloat16
    assert_equal(x.dense(), w, "rank one")


def test_sums_and_slices_stay_factorized() -> None:
    x, y = (matrix("tt", (3, (4, 3), (2, 5))) for _ in range(2))
    assert isinstance(x + y, FactorizedView) and isinstance(x[1], FactorizedView)
    assert_equal((x + y)[1].to_matrix(), x.dense()[1] + y.dense()[1], "a sum")
    assert (x + y).numel() < 2 * 2 * x.numel()


def test_layouts_are_those_of_the_literature() -> None:
    wanted = {
        "cp": "b0 (o0=4 o1=3) (i0=2 i1=5) -> b0 o0 o1 i0 i1",
        "tucker": "b0 (o0=4 o1=3) (i0=2 i1=5) -> b0 o0 o1 i0 i1",
        "tt": "b0 (o0=4 o1=3) (i0=2 i1=5) -> b0 (o0 i0) (o1 i1)",
        "kronecker": "b0 (o0=4 o1=3) (i0=2 i1=5) -> (b0 o0) i0 o1 i1",
        "lowrank": "b0 (o0=4 o1=3) (i0=2 i1=5) -> (b0 o0 o1) (i0 i1)",
        "sliced_lowrank": "b0 (o0=4 o1=3) (i0=2 i1=5) -> (o0 o1) b0 (i0 i1)",
    }
    for name, layout in wanted.items():
        assert str(tensorized_layout((3, (4, 3), (2, 5)), formats[name])) == layout


@pytest.mark.parametrize("shape", [(), ((4, 4),), ((4, 0), (2, 2)), ((), (2, 2))])
def test_shapes_without_rows_and_columns_are_refused(shape: Any) -> None:
    with pytest.raises(ShapeError, match="the shape of a tensorized matrix came as"):
        TensorizedTensor.new(shape, 2, "tt")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(LayoutError, match="has an axis of size 12"):
        TensorizedTensor.from_matrix(torch.ones(12, 10), (4, 4), (2, 5), TTSVD(), 2)
    with pytest.raises(ShapeError, match="is no matrix"):
        TensorizedTensor.from_matrix(torch.ones(12), (4, 3), (2, 5), TTSVD(), 2)
    with pytest.raises(UnknownNameError, match="did you mean 'tucker'"):
        TensorizedTensor.new(((4, 3), (2, 5)), 2, "tuckr")
    with pytest.raises(RankError):
        TensorizedTensor.new(((4, 3), (2, 5)), 0, "tt")
    with pytest.raises(TensorIndexError, match="index 12 is out of range for axis 0"):
        matrix("tt", ((4, 3), (2, 5)))[12]


# Sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("sizes", [(512, 512), (768, 3072), (1024, 1000), (784, 256), (4096, 11008)])
def test_both_sizes_split_into_as_many_nearly_equal_numbers(sizes: tuple[int, int], order: int) -> None:
    first, second = get_tensorized_shape(*sizes, order)
    assert (math.prod(first), math.prod(second)) == sizes and len(first) == len(second) == order
    assert first == tuple(sorted(first)) and second == tuple(sorted(second, reverse=True))


@pytest.mark.parametrize("n", [12, 36, 360, 768, 1000])
@pytest.mark.parametrize("order", [2, 3])
def test_no_other_product_has_a_smaller_sum(n: int, order: int) -> None:
    numbers = [d for d in range(2, n + 1) if n % d == 0]
    pairs = [(a,) for a in numbers] if order == 2 else [(a, b) for a in numbers for b in numbers]
    others = [(*p, n // math.prod(p)) for p in pairs if n % math.prod(p) == 0 and n // math.prod(p) > 1]
    assert sum(split(n, order)) == min(map(sum, others))


@pytest.mark.parametrize("n", [2, 7, 97, 1009, 30522, 50257, 128256, 999983])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_padded_sizes_are_balanced_and_hardly_larger(n: int, order: int) -> None:
    numbers = padded(n, order)
    assert numbers[-1] <= 2 * numbers[0] and math.prod(numbers) >= n
    assert math.prod(numbers) <= max(1.03 * n, n + 16)


def test_sizes_that_do_not_split_are_refused_with_what_would() -> None:
    with pytest.raises(OptionError) as error:
        get_tensorized_shape(1009, 1024, 3)
    assert str(error.value) == (
        "1009 is no product of 3 numbers of at least 2.\nGive a lower order, or pad it: 1024 is."
    )
    assert get_tensorized_shape(1009, 1024, 3, pad=True) == ((8, 8, 16), (16, 8, 8))
    assert get_tensorized_shape(1009, 1024) == ((1009,), (1024,))
    for options in ({"order": 0}, {"min_dim": 1}, {"in_features": 0}):
        with pytest.raises(OptionError, match="Give sizes and an order of 1 or more"):
            get_tensorized_shape(**({"in_features": 4, "out_features": 4} | options))


def test_the_smallest_number_and_the_largest_order_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert get_tensorized_shape(1024, 1024, min_dim=4) == ((4, 4, 4, 4, 4), (4, 4, 4, 4, 4))
    assert get_tensorized_shape(1000, 2048, min_dim=8) == ((10, 10, 10), (16, 16, 8))
    assert capsys.readouterr().out == ""
