import numpy as np
import pytest
import torch

from tenfold.core.arrays import adjoint
from tenfold.core.errors import OptionError, RankError, ShapeError
from tenfold.core.linalg import (
    gram_accuracy,
    leading_left,
    orthonormalise,
    randomized_svd,
    rank_for_tolerance,
    solve_psd,
    truncated_svd,
)

SHAPES = [(6, 6), (9, 4), (4, 9), (1, 5), (5, 1)]
DTYPES = ["float32", "float64", "complex64", "complex128"]
TOLERANCE = {"float16": 3e-3, "float32": 1e-5, "complex64": 1e-5, "float64": 1e-12, "complex128": 1e-12}


def numbers(x):
    return np.asarray(x).astype("complex128")


def close(x, y, dtype="float64"):
    np.testing.assert_allclose(
        numbers(x), numbers(y), atol=TOLERANCE[dtype] * max(1, abs(numbers(y)).max()), rtol=0
    )


def with_spectrum(library, shape, values, dtype="float64"):
    """A matrix with the given singular values and random singular vectors."""
    u, _ = np.linalg.qr(np.asarray(library.normal(shape[0], len(values), seed=1)))
    v, _ = np.linalg.qr(np.asarray(library.normal(shape[1], len(values), seed=2)))
    return library.array((u * np.asarray(values)) @ v.T, dtype)


def assert_orthonormal(u, dtype="float64"):
    close(adjoint(u) @ u, np.eye(u.shape[1]), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_svd_of_full_rank_restores_the_matrix(library, shape, dtype):
    a = library.normal(*shape, dtype=dtype)
    u, s, vh = truncated_svd(a, min(shape))
    close((u * s) @ vh, a, dtype)
    assert_orthonormal(u, dtype)
    assert_orthonormal(adjoint(vh), dtype)
    assert u.dtype == vh.dtype == a.dtype and not library.xp.isdtype(s.dtype, "complex floating")


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_svd_error_is_the_discarded_singular_values(library, dtype):
    a = library.normal(7, 5, dtype=dtype)
    u, s, vh = truncated_svd(a, 2)
    discarded = np.linalg.svd(np.asarray(a), compute_uv=False)[2:]
    assert np.linalg.norm(numbers(a - (u * s) @ vh)) == pytest.approx(np.linalg.norm(discarded), rel=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_largest_entry_of_left_vectors_is_positive(library, dtype):
    a = library.normal(7, 5, dtype=dtype)
    for u in (truncated_svd(a, 3)[0], leading_left(a, 3)[0], randomized_svd(a, 3, generator=0)[0]):
        u = numbers(u)
        pivots = u[abs(u).argmax(axis=0), range(3)]
        assert (pivots.real > 0).all() and abs(pivots.imag).max() < 1e-12


def test_svd_agrees_across_libraries():
    a = np.random.default_rng(0).standard_normal((6, 4))
    for x, y in zip(truncated_svd(a, 3), truncated_svd(torch.from_numpy(a), 3), strict=True):
        close(x, y)


def test_svd_of_half_precision_is_computed_in_float32(library):
    a = library.normal(6, 4, dtype="float16")
    u, s, vh = truncated_svd(a, 4)
    assert u.dtype == s.dtype == vh.dtype == a.dtype
    close((u * s) @ vh, a, "float16")


def test_svd_of_integers_is_floating(library):
    _, s, _ = truncated_svd(library.array([[3, 0], [0, 4]], "int64"), 1)
    close(s, [4.0], "float32")


def test_svd_of_zero_is_finite(library):
    u, s, vh = truncated_svd(library.array(np.zeros((3, 2))), 2)
    close((u * s) @ vh, np.zeros((3, 2)))


def test_svd_of_transposed_and_strided_views(library):
    a = library.normal(8, 12)
    for view in (a.T, a[::2, ::3]):
        u, s, vh = truncated_svd(view, min(view.shape))
        close((u * s) @ vh, view)


@pytest.mark.parametrize("rank", [0, 4, -1])
@pytest.mark.parametrize("function", [truncated_svd, randomized_svd, leading_left])
def test_a_rank_outside_its_range_is_refused(library, function, rank):
    with pytest.raises(RankError) as raised:
        function(library.normal(3, 5), rank)
    assert str(raised.value) == (
        f"a matrix of shape (3, 5) has no approximation of rank {rank}.\nChoose a rank from 1 to 3."
    )


@pytest.mark.parametrize("function", [truncated_svd, randomized_svd, leading_left])
def test_a_tensor_is_refused(library, function):
    with pytest.raises(ShapeError, match=r"expected a matrix, but got an array of shape \(2, 3, 4\)"):
        function(library.normal(2, 3, 4), 1)


def test_svd_is_differentiable():
    a = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def approximation(x):
        u, s, vh = truncated_svd(x, 2)
        return (u * s) @ vh

    assert torch.autograd.gradcheck(approximation, a.requires_grad_())


@pytest.mark.parametrize(
    ("tolerance", "rank"), [(0.0, 4), (0.5, 4), (1.0, 3), (2.9, 3), (3.2, 2), (5.2, 1), (99.0, 1)]
)
def test_rank_for_tolerance_bounds_the_tail(library, tolerance, rank):
    assert rank_for_tolerance(library.array([10.0, 4.0, 3.0, 1.0]), tolerance) == rank


def test_rank_for_tolerance_neither_under_nor_overflows(library):
    for scale in (1e-30, 1e30):
        assert rank_for_tolerance(library.array([4 * scale, 3 * scale, 0.0], "float32"), 1.5 * scale) == 2
    assert rank_for_tolerance(library.array([0.0, 0.0]), 0.0) == 1


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_a_tolerance_below_zero_is_refused(library, tolerance):
    with pytest.raises(OptionError, match=r"the tolerance is .*\nChoose a number of at least 0"):
        rank_for_tolerance(library.array([1.0]), tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (5, 40)])
def test_randomized_svd_recovers_a_matrix_of_that_rank(library, shape, dtype):
    a = library.normal(shape[0], 3, dtype=dtype) @ library.normal(3, shape[1], seed=1, dtype=dtype)
    u, s, vh, error = randomized_svd(a, 3, generator=0)
    close((u * s) @ vh, a, dtype)
    assert_orthonormal(u, dtype)
    assert float(error) < 100 * TOLERANCE[dtype]


def test_randomized_svd_reports_its_error_and_is_nearly_optimal(library):
    a = with_spectrum(library, (60, 50), [1.0 / (i + 1) for i in range(50)])
    u, s, vh, error = randomized_svd(a, 5, generator=0)
    best = np.linalg.norm(np.linalg.svd(np.asarray(a), compute_uv=False)[5:])
    assert float(error) == pytest.approx(np.linalg.norm(np.asarray(a - (u * s) @ vh)), rel=1e-12)
    assert best <= float(error) < 1.02 * best


def test_randomized_svd_with_the_same_seed_is_the_same(library):
    a = library.normal(20, 20)
    for x, y in zip(randomized_svd(a, 2, generator=4), randomized_svd(a, 2, generator=4), strict=True):
        assert library.xp.all(x == y)


def test_randomized_svd_keeps_small_singular_values(library):
    values = [10.0**-i for i in range(12)]
    _, s, _, _ = randomized_svd(with_spectrum(library, (40, 30), values), 12, power_iterations=4, generator=0)
    np.testing.assert_allclose(np.asarray(s), values, rtol=1e-3)


@pytest.mark.parametrize("option", ["oversampling", "power_iterations"])
def test_randomized_svd_refuses_negative_options(library, option):
    with pytest.raises(OptionError, match="Both must be at least 0"):
        randomized_svd(library.normal(3, 3), 1, **{option: -1})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_leading_left_spans_what_the_svd_spans(library, shape, dtype):
    a = library.normal(*shape, dtype=dtype)
    for rank in {1, min(shape)}:
        u, s = leading_left(a, rank)
        expected, _, _ = truncated_svd(a, rank)
        close(u @ adjoint(u), expected @ adjoint(expected), dtype)
        close(s, np.linalg.svd(np.asarray(a), compute_uv=False), dtype)
        assert u.dtype == a.dtype and not library.xp.isdtype(s.dtype, "complex floating")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(80, 30), (30, 80)])
@pytest.mark.parametrize("error", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8])
def test_leading_left_is_as_good_as_the_svd_whatever_it_discards(library, shape, dtype, error):
    values = [1.0] * 3 + [0.5, 0.3] + [error / 5] * 25
    a = with_spectrum(library, shape, values, dtype)
    u, _ = leading_left(a, 5)
    assert_orthonormal(u, dtype)
    u, exact = np.asarray(u).astype("float64"), np.asarray(a).astype("float64")
    best = np.linalg.norm(np.linalg.svd(exact, compute_uv=False)[5:])
    assert np.linalg.norm(exact - u @ (u.T @ exact)) < 1.01 * best + 10 * TOLERANCE[dtype]


def test_leading_left_of_an_exactly_low_rank_matrix(library):
    a = library.normal(30, 3) @ library.normal(3, 20)
    u, s = leading_left(a, 3)
    close(u @ (u.T @ a), a)
    assert float(s[3]) < 1e-12 * float(s[0])


def test_leading_left_of_zero_is_orthonormal(library):
    u, _ = leading_left(library.array(np.zeros((5, 3))), 2)
    assert_orthonormal(u)


def test_the_gram_matrix_is_trusted_less_where_it_is_larger(library):
    assert gram_accuracy(library.normal(4, 4)) == 1e-5
    assert gram_accuracy(library.normal(4, 4, dtype="float16")) == 3e-3
    assert gram_accuracy(library.normal(1000, 1000, dtype="float32")) > 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_orthonormalise_factors_the_matrix(library, shape, dtype):
    a = library.normal(*shape, dtype=dtype)
    basis, coordinates = orthonormalise(a)
    close(basis @ coordinates, a, dtype)
    assert_orthonormal(basis, dtype)
    diagonal = numbers(coordinates).diagonal()
    assert (diagonal.real > 0).all() and abs(diagonal.imag).max() < TOLERANCE[dtype]


def test_orthonormalise_of_zero_and_of_half_precision(library):
    assert_orthonormal(orthonormalise(library.array(np.zeros((3, 2))))[0])
    assert (
        orthonormalise(library.normal(3, 2, dtype="float16"))[0].dtype
        == library.xp.asarray(library.array([0.0], "float16")).dtype
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [(), (1,), (4,)])
def test_solve_psd_solves(library, dtype, columns):
    k = library.normal(20, 5, dtype=dtype)
    gram, rhs = adjoint(k) @ k, library.normal(5, *columns, seed=1, dtype=dtype)
    x = solve_psd(gram, rhs)
    assert x.shape == rhs.shape and x.dtype == rhs.dtype
    close(gram @ x, rhs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_solve_psd_of_a_singular_gram_matrix_is_a_least_squares_solution(library, dtype):
    k = library.normal(20, 3, dtype=dtype) @ library.normal(3, 6, seed=1, dtype=dtype)
    gram, target = adjoint(k) @ k, library.normal(20, 2, seed=2, dtype=dtype)
    x = solve_psd(gram, adjoint(k) @ target)
    expected = np.asarray(k) @ np.linalg.lstsq(np.asarray(k), np.asarray(target), rcond=1e-4)[0]
    np.testing.assert_allclose(
        numbers(k @ x), expected, atol=1e-3 if dtype in ("float32", "complex64") else 1e-9
    )


def test_solve_psd_ignores_a_dead_component(library):
    gram = library.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    close(solve_psd(gram, library.array([2.0, 0.0, 5.0])), [1.0, 0.0, 1.0])


def test_solve_psd_of_equal_components_shares_evenly(library):
    close(solve_psd(library.array(np.ones((2, 2))), library.array([1.0, 1.0])), [0.5, 0.5])


def test_solve_psd_does_not_lose_components_of_very_different_size(library):
    scale = np.array([1e-12, 1.0, 1e12])
    k = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
    gram, exact = scale[:, None] * k * scale, np.array([3.0, 2.0, 1.0]) / scale
    np.testing.assert_allclose(
        np.asarray(solve_psd(library.array(gram), library.array(gram @ exact))), exact, rtol=1e-9
    )


def test_solve_psd_is_differentiable():
    k = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rhs = torch.ones(3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda k: solve_psd(k.T @ k, rhs), k.requires_grad_())


def test_solve_psd_refuses_shapes_that_do_not_fit(library):
    with pytest.raises(ShapeError, match=r"but got \(3, 3\) and \(2, 1\)\.\nBoth must have r rows"):
        solve_psd(library.normal(3, 3), library.normal(2, 1))


def test_leading_left_and_rank_for_tolerance_work_on_tensors_that_need_gradients():
    a = torch.diag(torch.tensor([3.0, 2.0, 1.0])).requires_grad_()
    u, s = leading_left(a, 2)
    assert u.requires_grad and rank_for_tolerance(s, 1.5) == 2


def test_dask_arrays_are_taken_by_name():
    da = pytest.importorskip("dask.array")
    x = np.arange(12.0).reshape(3, 4)
    s = truncated_svd(matrix=da.from_array(x, chunks=2), rank=2)[1]
    assert isinstance(s, da.Array)
    np.testing.assert_allclose(s.compute(), truncated_svd(x, 2)[1], atol=1e-12)
