"""Sampled alternating least squares, and the other methods that take sparse tensors."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.algebra import khatri_rao
from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.core.incomplete import Incomplete
from tenfold.core.sparse import Sparse
from tenfold.decompose import CPALS, CPGN, HOOI, HOSVD, STHOSVD, TTSVD, CPLeverage, sparse_inner
from tenfold.decompose.cp.leverage_scores import drawn, leverage
from tenfold.decompose.cp.sampled_fibres import fibres_of, sampled_solution
from tenfold.decompose.entries.sparse_residual import sparse_residual
from tenfold.formats import CP, Format


def true_error(dense: Any, value: Format) -> float:
    """‖X - M‖ / ‖X‖."""
    return float(np.linalg.norm(value.dense() - dense) / np.linalg.norm(dense))


def concentrated(shape: tuple[int, ...], rank: int, seed: int = 0) -> np.ndarray:
    """A sparse tensor of this rank: all but a few rows of its factors are zero."""
    random = np.random.default_rng(seed)
    factors = [random.standard_normal((n, rank)) * (random.random((n, rank)) < 0.3) for n in shape]
    return CP(tuple(factors)).dense()


# Sampling --------------------------------------------------------------------------------------------------


def test_leverage_scores_are_chances_that_do_not_depend_on_the_basis() -> None:
    factor = np.random.default_rng(0).standard_normal((20, 3))
    scores = leverage(factor)
    np.testing.assert_allclose(scores.sum(), 1)
    np.testing.assert_allclose(leverage(factor @ [[1.0, 2, 0], [0, 1e-3, 5], [0, 0, 7]]), scores, rtol=1e-6)


@pytest.mark.parametrize("certain", [True, False])
def test_sampled_sums_are_right_on_average(certain: bool) -> None:
    random = np.random.default_rng(0)
    factors = [random.standard_normal((n, 2)) * (10.0 ** random.standard_normal((n, 1))) for n in (12, 9, 7)]
    product = khatri_rao(factors)
    stream = np.random.default_rng(1)
    grams = []
    for _ in range(400):
        sample = drawn(factors, 60, stream, certain=certain)
        rows = sample.product(factors)
        np.testing.assert_array_equal(rows, product[sample.numbers])
        assert len(set(sample.numbers.tolist())) == rows.shape[0] <= 60
        grams.append(rows.T @ (sample.weights[:, None] * rows))
    whole = product.T @ product
    spread = np.std(grams, axis=0) / 20 + 1e-12 * np.abs(whole)
    assert np.all(np.abs(np.mean(grams, axis=0) - whole) < 4 * spread)


def test_all_rows_are_taken_where_they_are_few() -> None:
    sample = drawn([np.ones((3, 1)), np.ones((4, 1))], 12, None)
    assert sample.numbers.tolist() == list(range(12)) and np.all(sample.weights == 1)


def test_rows_of_high_leverage_are_certain() -> None:
    factors = [np.eye(50, 2), np.eye(40, 2)]
    sample = drawn(factors, 8, np.random.default_rng(0))
    heavy = [0, 1, 40, 41]
    assert set(heavy) == set(sample.numbers.tolist()) and np.all(sample.weights == 1)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_with_all_rows_the_sampled_solution_is_least_squares(dtype: str) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((4, 5, 6)).astype(dtype) * (1 + 1j if dtype == "complex128" else 1)
    factors = [random.standard_normal((n, 2)).astype(dtype) for n in x.shape]
    for mode in range(3):
        others = [f for k, f in enumerate(factors) if k != mode]
        expected = np.linalg.lstsq(khatri_rao(others), np.moveaxis(x, mode, 0).reshape(x.shape[mode], -1).T)[
            0
        ].T
        for tensor in (x, Sparse.from_dense(x)):
            found = sampled_solution(fibres_of(tensor), factors, mode, drawn(others, 30, None))
            np.testing.assert_allclose(found, expected, atol=1e-10)


def test_dense_and_sparse_fibres_are_the_same() -> None:
    x = concentrated((8, 9, 10), 3)
    factors = [np.random.default_rng(k).standard_normal((n, 2)) for k, n in enumerate(x.shape)]
    for mode in range(3):
        sample = drawn([f for k, f in enumerate(factors) if k != mode], 40, np.random.default_rng(0))
        dense, sparse = (
            sampled_solution(fibres_of(t), factors, mode, sample) for t in (x, Sparse.from_dense(x))
        )
        np.testing.assert_allclose(dense, sparse, atol=1e-10)


def test_strata_count_every_entry_once() -> None:
    x = Sparse.from_dense(concentrated((30, 40, 50), 4))
    columns, values, weights = fibres_of(x).some_entries(2000, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(), 30 * 40 * 50)
    np.testing.assert_array_equal(values, x.dense()[tuple(columns)])


# Fits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_a_sample_of_fibres_recovers_a_tensor(seed: int) -> None:
    x = CP.random((30, 40, 50), 3, like=np.zeros(()), generator=seed).dense()
    fit = CPLeverage(samples=200, tol=1e-6, restarts=2)(x, 3, generator=seed)
    assert fit.error < 1e-4 and fit.error == pytest.approx(true_error(x, fit.value))


def test_with_noise_the_error_is_close_to_that_of_alternating_least_squares() -> None:
    x = CP.random((40, 40, 40), 3, like=np.zeros(()), generator=0).dense()
    x = x + 0.1 * x.std() * np.random.default_rng(0).standard_normal(x.shape)
    full, sampled = CPALS().fit(x, 3, generator=0), CPLeverage(samples=600, restarts=3).fit(x, 3, generator=0)
    assert full.error < sampled.error < 1.02 * full.error


METHODS = [CPLeverage(samples=500, restarts=3), CPALS(), CPGN()]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("array", [np.asarray, torch.as_tensor])
def test_sparse_tensors_are_fitted_without_their_zeros(method: Any, array: Any) -> None:
    x = concentrated((25, 20, 30), 3)
    fit = method.fit(Sparse.from_dense(array(x)), 3, generator=0)
    assert fit.error == pytest.approx(true_error(x, fit.value.map(np.asarray)), abs=1e-9)
    assert fit.error < 0.05 and type(fit.value.factors[0]) is type(array(x))


@pytest.mark.parametrize("method", [*METHODS, HOOI(), HOSVD(), STHOSVD()], ids=lambda m: type(m).__name__)
def test_a_sparse_tensor_without_entries_is_zero(method: Any) -> None:
    empty = Sparse(np.zeros((0, 3), dtype=int), np.zeros(0), (4, 5, 6))
    fit = method.fit(empty, 2, generator=0)
    assert fit.error == 0 and not fit.value.dense().any()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    "method", [CPALS(tol=1e-8, max_steps=300, ridge=0), CPGN()], ids=lambda m: type(m).__name__
)
def test_sparse_and_dense_reach_the_same_error(method: Any, dtype: str) -> None:
    x = concentrated((8, 7, 9), 4).astype(dtype) * (1 + 1j if dtype == "complex128" else 1)
    x = x + 0.05 * (x != 0)
    errors = [min(method.fit(t, 2, generator=s).error for s in range(3)) for t in (x, Sparse.from_dense(x))]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("method", [HOSVD(), HOOI(tol=1e-9)], ids=lambda m: type(m).__name__)
def test_tucker_of_a_sparse_tensor_is_that_of_the_dense_one(method: Any, dtype: str) -> None:
    x = concentrated((12, 11, 13), 5).astype(dtype) * (1 + 1j if dtype == "complex128" else 1)
    sparse, dense = (method.fit(t, (2, 3, 3), generator=0) for t in (Sparse.from_dense(x), x))
    assert sparse.error == pytest.approx(dense.error, rel=1e-3)
    assert sparse.error == pytest.approx(true_error(x, sparse.value), rel=1e-9)


def test_hosvd_of_a_sparse_tensor_keeps_a_tolerance_and_whole_modes() -> None:
    x = concentrated((12, 11, 13), 3)
    for tol in (0.3, 1e-6):
        fit = HOSVD(tol=tol)(Sparse.from_dense(x))
        assert true_error(x, fit.value) <= tol
    assert HOSVD(tol=1e-6)(Sparse.from_dense(x)).value.ranks == {"R0": 3, "R1": 3, "R2": 3}
    fit = STHOSVD()(Sparse.from_dense(x), (3, None, 3), generator=0)
    assert fit.value.matrices[1] is None and fit.error < 1e-10


def test_a_sparse_tensor_larger_than_any_memory_is_fitted() -> None:
    random = np.random.default_rng(0)
    shape = (10**5, 10**5, 10**5)
    rows = [random.choice(10**5, 20, replace=False) for _ in range(3)]
    core = CP.random((20, 20, 20), 2, like=np.zeros(()), generator=0).dense()
    indices = np.stack(
        [r[k] for r, k in zip(rows, np.indices(core.shape).reshape(3, -1), strict=True)], axis=1
    )
    x = Sparse(indices, core.reshape(-1), shape)
    for method in (CPALS(max_steps=200), CPLeverage()):
        assert method.fit(x, 2, generator=0).error < 1e-3
    assert HOOI().fit(x, 2, generator=0).error < 1e-6


# The error -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-11])
def test_the_error_of_a_sparse_fit_is_true_also_where_norms_cancel(size: float) -> None:
    x = concentrated((12, 10, 14), 2)
    value = CP.random(x.shape, 1, like=np.zeros(()), generator=0)
    noisy = x + size * value.dense() * (x != 0)
    truth = CP(
        tuple(np.concatenate([a, b], axis=1) for a, b in zip(_factors(x), _factors(0 * x), strict=True))
    )
    expected = np.linalg.norm(truth.dense() - noisy)
    np.testing.assert_allclose(sparse_residual(Sparse.from_dense(noisy), truth), expected, rtol=1e-6)


def _factors(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return CPGN(tol=1e-12).fit(x, 2, generator=0).value.matrices


def test_inner_products_with_formats_are_dense_ones() -> None:
    x, value = concentrated((6, 5, 4), 3), CP.random((6, 5, 4), 2, like=np.zeros(()), generator=0)
    np.testing.assert_allclose(sparse_inner(Sparse.from_dense(x), value), np.vdot(x, value.dense()))


# What is refused -------------------------------------------------------------------------------------------


def test_methods_say_which_lists_they_take() -> None:
    with pytest.raises(UnsupportedError, match="TTSVD takes no sparse tensors"):
        TTSVD()(Sparse.from_dense(np.eye(3)), 1)
    with pytest.raises(UnsupportedError, match="CPLeverage takes no incomplete tensors"):
        CPLeverage()(Incomplete.from_mask(np.eye(3), np.eye(3) > 0), 1)


def test_fibres_that_cannot_be_numbered_are_refused() -> None:
    indices = np.zeros((1, 5), dtype=int)
    with pytest.raises(UnsupportedError, match="more fibres than can be numbered"):
        CPLeverage(start="random")(Sparse(indices, np.ones(1), (2**16,) * 5), 1)


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"tol": -1},
        {"start": "svd"},
        {"patience": 0},
        {"fit_samples": 0},
        {"restarts": 0},
        {"max_steps": 0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        CPLeverage(**options)
