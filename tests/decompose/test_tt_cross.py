"""TT-cross finds functions from a small part of their values, and says how well."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import ConvergenceWarning, OptionError, ShapeError, WeightError
from tenfold.decompose import CrossFit, TTCross, entries_of
from tenfold.decompose.trains.maxvol import chosen, maxvol

LIKE = np.zeros(())
Function = Callable[[np.ndarray], np.ndarray]


def all_values(function: Function, shape: tuple[int, ...]) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.asarray(function(grid.reshape(-1, len(shape)))).reshape(shape)


def true_error(fit: CrossFit, function: Function) -> float:
    whole = all_values(function, fit.value.shape)
    return float(np.linalg.norm(whole - fit.value.dense()) / np.linalg.norm(whole))


CASES: dict[str, tuple[Function, tuple[int, ...], float, float]] = {
    "1/(2+sum)": (lambda i: 1 / (2 + (i + 1).sum(axis=1)), (20,) * 4, 1e-7, 1e-6),
    "1/(1+sum)": (lambda i: 1 / (1 + i.sum(axis=1)), (2,) * 8, 1e-6, 1e-5),
    "1/t": (lambda i: 1 / (1 + i.sum(axis=1) / 15), (16,) * 4, 1e-4, 1e-4),
    "cos t": (lambda i: np.cos(i.sum(axis=1) / 15), (16,) * 4, 1e-4, 1e-4),
    "exp t": (lambda i: np.exp(i.sum(axis=1) / 15), (16,) * 4, 1e-4, 1e-4),
    "equal ends": (lambda i: 1.0 + (i[:, 0] == i[:, 3]), (6,) * 4, 1e-8, 1e-7),
    "a vector": (lambda i: np.sin(i[:, 0]), (9,), 1e-6, 1e-12),
    "a matrix": (lambda i: np.sin(i[:, 0] * i[:, 1]), (9, 11), 1e-6, 1e-6),
}


@pytest.mark.parametrize("name", CASES)
def test_known_functions_are_found(name: str) -> None:
    function, shape, tol, bound = CASES[name]
    fit = TTCross(tol=tol)(function, shape, like=LIKE, generator=0)
    assert fit.converged and fit.error <= tol
    assert true_error(fit, function) < bound
    assert fit.samples == 1000 and fit.steps == len(fit.trace)


def test_sines_of_thirty_modes_take_few_evaluations() -> None:
    def function(i: np.ndarray) -> np.ndarray:
        return np.sin(7 * (i * 2.0 ** -np.arange(1, 31)).sum(axis=1))

    fit = TTCross(tol=1e-9)(function, (2,) * 30, like=LIKE, generator=0)
    assert set(fit.value.ranks.values()) == {2} and fit.evaluations < 5000


def test_bounded_ranks_give_a_fair_fit_and_a_warning() -> None:
    def function(i: np.ndarray) -> np.ndarray:
        return 1 / (3 + i.sum(axis=1))

    with pytest.warns(ConvergenceWarning, match="half sweeps and"):
        fit = TTCross()(function, (10,) * 3, 3, like=LIKE, generator=0)
    assert set(fit.value.ranks.values()) == {3} and true_error(fit, function) < 5e-2


def test_ranks_above_what_the_unfoldings_hold_are_cut_and_it_ends() -> None:
    tensor = np.arange(64.0).reshape((2,) * 6)
    fit = TTCross()(entries_of(tensor), tensor.shape, (3,) * 5, like=LIKE, generator=0)
    np.testing.assert_allclose(fit.value.dense(), tensor, atol=1e-10)
    assert max(fit.value.ranks.values()) <= 3


def test_a_full_tensor_comes_back_at_full_ranks() -> None:
    tensor = np.random.default_rng(0).standard_normal((5, 6, 7))
    fit = TTCross(tol=1e-10)(entries_of(tensor), tensor.shape, like=LIKE, generator=0)
    np.testing.assert_allclose(fit.value.dense(), tensor, atol=1e-10)
    assert fit.value.ranks == {"R1": 5, "R2": 7}


def test_zero_is_zero() -> None:
    fit = TTCross()(lambda i: 0.0 * i[:, 0], (6,) * 4, like=LIKE, generator=0)
    assert fit.error == 0 and not fit.value.dense().any() and set(fit.value.ranks.values()) == {1}


def test_complex_functions_need_a_complex_like() -> None:
    def function(i: np.ndarray) -> np.ndarray:
        return np.exp(1j * i.sum(axis=1)) + 1 / (1 + i.sum(axis=1))

    fit = TTCross(tol=1e-8)(function, (12,) * 3, like=LIKE.astype(complex), generator=0)
    assert true_error(fit, function) < 1e-7 and fit.value.dtype == np.complex128
    with pytest.raises(OptionError, match="the function is complex"):
        TTCross()(function, (12,) * 3, like=LIKE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_gives_torch(dtype: torch.dtype) -> None:
    like = torch.zeros((), dtype=dtype)

    def function(i: torch.Tensor) -> torch.Tensor:
        assert i.dtype == torch.int64
        return 1 / (1 + i.sum(dim=1).to(dtype))

    fit = TTCross(tol=1e-4)(function, (10,) * 4, like=like, generator=0)
    assert fit.value.dtype == dtype and fit.error <= 1e-4


def test_the_same_seed_gives_the_same_train() -> None:
    function, shape, _, _ = CASES["1/(2+sum)"]
    first, second = (TTCross()(function, shape, like=LIKE, generator=7) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.value.cores, second.value.cores, strict=True))


def test_evaluations_are_counted_and_bounded() -> None:
    seen = []

    def function(i: np.ndarray) -> np.ndarray:
        seen.append(len(i))
        return np.random.default_rng(int(i.sum())).standard_normal(len(i))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = TTCross(max_evaluations=20_000)(function, (8,) * 4, like=LIKE, generator=0)
    assert fit.evaluations == sum(seen) <= 20_000 and not fit.converged
    with pytest.raises(OptionError, match="end before the first train is complete"):
        TTCross(max_evaluations=2_100)(function, (8,) * 4, like=LIKE, generator=0)
    with pytest.raises(OptionError, match="max_evaluations=5 "):
        TTCross(max_evaluations=5)(function, (8,) * 4, like=LIKE, generator=0)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ShapeError, match="was asked for 1000 entries"):
        TTCross()(lambda i: i, (4, 5), like=LIKE)
    with pytest.raises(WeightError, match="'the function' has"):
        TTCross()(lambda i: np.where(i[:, 0] == 0, np.nan, 1.0), (4, 5), like=LIKE)
    with pytest.raises(ShapeError, match="has no values"):
        TTCross()(lambda i: i[:, 0], (4, 0), like=LIKE)
    for options in ({"max_rank": 0}, {"samples": 0}, {"max_steps": 0}, {"tol": -1.0}, {"max_evaluations": 0}):
        with pytest.raises(OptionError):
            TTCross(**options)  # type: ignore[arg-type]


# Maxvol --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_interpolation_from_maxvol_rows_is_exact_and_bounded(library: Any, dtype: str) -> None:
    a = library.normal(60, 7, dtype=dtype)
    rows, coefficients = maxvol(a)
    assert len(set(rows)) == 7
    np.testing.assert_allclose(np.asarray(coefficients @ chosen(a, rows)), np.asarray(a), atol=1e-12)
    assert np.abs(np.asarray(coefficients)).max() <= 1.02 + 1e-9


def test_maxvol_finds_a_volume_near_the_largest() -> None:
    a = np.random.default_rng(0).standard_normal((12, 2))
    best = max(abs(np.linalg.det(a[[i, j]])) for i in range(12) for j in range(i))
    assert abs(np.linalg.det(a[maxvol(a, excess=0.0)[0]])) > 0.7 * best


def test_maxvol_needs_a_tall_matrix() -> None:
    with pytest.raises(ShapeError, match="has no 3 independent rows"):
        maxvol(np.ones((2, 3)))
