import tracemalloc

import numpy as np
import pytest
import torch
from tests.conftest import Library

from tenfold.algebra import (
    khatri_rao,
    mttkrp,
    mttkrp_sweep,
    mttkrps,
    residual_mttkrps,
    squared_residual,
    unfold,
)
from tenfold.core.errors import ShapeError
from tenfold.testing.libraries import LIBRARIES

SHAPES = [(3,), (4, 3), (2, 3, 4), (6, 5, 2), (2, 5, 6), (3, 1, 2, 4), (5, 4, 3, 2), (2, 3, 2, 1, 3)]
DTYPES = ["float32", "float64", "complex128"]
TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "complex128": 1e-10}


@pytest.fixture(params=["numpy", "torch"])
def library(request):
    """Two libraries, as these tests are many; one test is for all."""
    return Library(request.param)


@pytest.mark.parametrize("name", list(LIBRARIES))
@pytest.mark.parametrize("shape", [(4, 3), (5, 4, 3, 2)])
def test_mttkrp_is_the_unfolding_times_khatri_rao_on_every_library(name, shape):
    library = Library(name)
    tensor, factors = library.normal(*shape), factors_for(library, shape, 3)
    expected = [by_definition(tensor, factors, mode) for mode in range(len(shape))]
    for mode, swept in mttkrp_sweep(tensor, factors):
        close(swept, expected[mode])
        close(mttkrp(tensor, factors, mode), expected[mode])
    for product, right in zip(mttkrps(tensor, factors), expected, strict=True):
        close(product, right)


def factors_for(library, shape, rank, dtype="float64"):
    return [library.normal(size, rank, seed=n + 1, dtype=dtype) for n, size in enumerate(shape)]


def by_definition(tensor, factors, mode):
    others = [factor for n, factor in enumerate(factors) if n != mode]
    columns = khatri_rao(others) if others else 1 + 0 * factors[0][:1, :]
    return unfold(tensor, mode) @ columns


def close(x, y, dtype="float64"):
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_mttkrp_is_the_unfolding_times_khatri_rao(library, shape, rank, dtype):
    tensor, factors = library.normal(*shape, dtype=dtype), factors_for(library, shape, rank, dtype)
    expected = [by_definition(tensor, factors, mode) for mode in range(len(shape))]
    for mode, product in enumerate(expected):
        close(mttkrp(tensor, factors, mode), product, dtype)
        close(mttkrp(tensor, factors, mode - len(shape)), product, dtype)
        assert mttkrp(tensor, factors, mode).dtype == tensor.dtype
    for product, one in zip(mttkrps(tensor, factors), expected, strict=True):
        close(product, one, dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sweep_sees_the_factors_renewed_before(library, shape):
    tensor, factors = library.normal(*shape), factors_for(library, shape, 3)
    expected = list(factors)
    for mode in range(len(shape)):
        expected[mode] = mttkrp(tensor, expected, mode) / 7
    for mode, product in mttkrp_sweep(tensor, factors):
        factors[mode] = product / 7
    for own, one in zip(factors, expected, strict=True):
        close(own, one)


def test_mttkrp_of_a_kruskal_tensor_is_its_factor_times_gram_matrices(library):
    a, b, c = factors_for(library, (3, 4, 5), 2)
    tensor = library.xp.reshape(a @ khatri_rao([b, c]).T, (3, 4, 5))
    close(mttkrp(tensor, [a, b, c], 1), b @ ((a.T @ a) * (c.T @ c)))


def test_mttkrp_of_tensors_that_are_not_contiguous(library):
    tensor = library.xp.permute_dims(library.normal(2, 3, 4), (2, 0, 1))
    factors = factors_for(library, (4, 2, 3), 3)
    for mode in range(3):
        close(mttkrp(tensor, factors, mode), by_definition(tensor, factors, mode))


def test_mttkrp_is_differentiable():
    tensor = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    factors = [torch.randn(size, 2, dtype=torch.float64, requires_grad=True) for size in (2, 3, 4)]
    for mode in range(3):
        assert torch.autograd.gradcheck(lambda t, *f, mode=mode: mttkrp(t, f, mode), (tensor, *factors))
    assert torch.autograd.gradcheck(lambda t, *f: tuple(mttkrps(t, f)), (tensor, *factors))


def peak(function, *arguments):
    tracemalloc.start()
    function(*arguments)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("mode", range(3))
def test_mttkrp_holds_no_more_than_documented(mode):
    shape, rank = (128, 128, 9), 64
    tensor, factors = np.ones(shape), [np.ones((size, rank)) for size in shape]
    bound, results = (128 + 128 * 9) * rank * tensor.itemsize, sum(shape) * rank * tensor.itemsize
    ufunc_buffers = 2**17
    assert peak(mttkrp, tensor, factors, mode) < bound + results + ufunc_buffers
    assert peak(mttkrps, tensor, factors) < bound + results + ufunc_buffers


@pytest.mark.parametrize("mode", range(3))
def test_components_are_taken_in_rounds_where_memory_is_short(mode):
    shape, rank = (96, 96, 9), 400
    tensor, factors = np.ones(shape), [np.ones((size, rank)) for size in shape]
    results = 2 * sum(shape) * rank * tensor.itemsize  # the parts, and their concatenation
    for limit in (2**18, 2**20, None):
        bound = (max(tensor.nbytes, 2**20) if limit is None else limit) + results + 2**17
        assert peak(lambda limit=limit: mttkrp(tensor, factors, mode, max_bytes=limit)) < bound
        assert peak(lambda limit=limit: mttkrps(tensor, factors, max_bytes=limit)) < bound


@pytest.mark.parametrize("max_bytes", [1, 500, 2000])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_memory_allowed_does_not_change_the_result(library, shape, max_bytes):
    tensor, factors = library.normal(*shape), factors_for(library, shape, 7)
    expected = [by_definition(tensor, factors, mode) for mode in range(len(shape))]
    for mode, product in enumerate(expected):
        close(mttkrp(tensor, factors, mode, max_bytes=max_bytes), product)
    for product, one in zip(mttkrps(tensor, factors, max_bytes=max_bytes), expected, strict=True):
        close(product, one)
    for mode, product in mttkrp_sweep(tensor, list(factors), max_bytes=max_bytes):
        close(product, expected[mode])


@pytest.mark.parametrize("max_bytes", [1, 500, 2000, None])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_residual_is_that_of_the_dense_tensor(library, shape, dtype, max_bytes):
    tensor, factors = library.normal(*shape, dtype=dtype), factors_for(library, shape, 3, dtype)
    columns = khatri_rao(factors[1:]) if factors[1:] else 1 + 0 * factors[0][:1, :]
    residual = library.xp.reshape(factors[0] @ columns.T, shape) - tensor
    conjugates = [library.xp.conj(f) if "complex" in dtype else f for f in factors]
    square, products = residual_mttkrps(tensor, factors, max_bytes=max_bytes)
    norm = float(np.linalg.norm(np.asarray(residual)))
    assert float(square) == pytest.approx(norm**2, rel=1e-4 if dtype == "float32" else 1e-12)
    assert float(squared_residual(tensor, factors, max_bytes=max_bytes)) == pytest.approx(float(square), 1e-4)
    for mode, product in enumerate(products):
        close(product, by_definition(residual, conjugates, mode), dtype)


@pytest.mark.parametrize("rank", [8, 64, 1000])
def test_the_residual_holds_no_more_than_documented(rank):
    shape = (96, 96, 3, 3)
    tensor, factors = np.ones(shape), [np.ones((size, rank)) / rank for size in shape]
    results = 4 * sum(shape) * rank * tensor.itemsize  # sums so far, of a block, both, and rows apart
    bound = max(tensor.nbytes, 2**20)
    assert peak(squared_residual, tensor, factors) < bound + 2**18
    assert peak(residual_mttkrps, tensor, factors) < bound + results + 2**18


@pytest.mark.parametrize(
    "function", [lambda t, f: mttkrp(t, f, 0), mttkrps, residual_mttkrps, squared_residual]
)
@pytest.mark.parametrize("shapes", [[(2, 2)], [(2, 2), (4, 2)], [(2, 2), (3, 3)], [(2,), (3,)], []])
def test_factors_that_do_not_fit_are_refused(library, function, shapes):
    with pytest.raises(ShapeError) as raised:
        function(library.normal(2, 3), [library.normal(*shape) for shape in shapes])
    assert str(raised.value) == (
        f"factors of shapes {', '.join(map(str, shapes))} do not fit a tensor of shape (2, 3).\n"
        "Give one matrix for each mode, as tall as the mode is long, all with as many columns."
    )


def test_a_mode_outside_the_order_is_refused(library):
    with pytest.raises(ShapeError, match="a tensor of order 2 has no mode 2"):
        mttkrp(library.normal(2, 3), factors_for(library, (2, 3), 2), 2)


@pytest.mark.parametrize("shape, rank", [((2, 3, 4), 0), ((2, 0, 4), 2), ((0, 3, 2, 2), 1)])
def test_empty_tensors_and_rank_0_have_products(shape: tuple[int, ...], rank: int) -> None:
    tensor, factors = np.ones(shape), [np.ones((n, rank)) for n in shape]
    expected = [np.zeros((n, rank)) for n in shape]
    square, products = residual_mttkrps(tensor, factors)
    each = [mttkrp(tensor, factors, k) for k in range(len(shape))]
    for found in (mttkrps(tensor, factors), each, products):
        for some, zeros in zip(found, expected, strict=True):
            np.testing.assert_array_equal(some, zeros)
    assert float(square) == pytest.approx(np.prod(shape), rel=1e-12)
