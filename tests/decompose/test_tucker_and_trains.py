"""Exact values of the literature, edge cases and memory of the methods built on singular values."""

import tracemalloc
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from tenfold.core import pieces
from tenfold.core.errors import OptionError, RankError
from tenfold.decompose import (
    HOOI,
    HOSVD,
    STHOSVD,
    TTSVD,
    Method,
    RandomizedHOSVD,
    RandomizedTTSVD,
    TTCross,
)
from tenfold.decompose.cuts import cheapest_first
from tenfold.formats import TensorTrain, Tucker

TUCKER: list[Method[Any]] = [HOSVD(), STHOSVD(), HOOI(), RandomizedHOSVD()]
TRAINS: list[Method[Any]] = [TTSVD(), RandomizedTTSVD()]
ALL = [*TUCKER, *TRAINS]


def name(method: Any) -> str:
    return type(method).__name__ if isinstance(method, Method) else str(method)


def hilbert(n: int, order: int) -> np.ndarray:
    """1 / (i + j + ... - order + 1), counted from 1."""
    return 1 / (1.0 + sum(np.meshgrid(*[np.arange(n)] * order, indexing="ij")))


def true_error(x: np.ndarray, value: Any) -> float:
    return float(np.linalg.norm(x - value.dense()) / np.linalg.norm(x))


# Hilbert tensors ------------------------------------------------------------------------------------------

NORMS = {(10, 3): 3.135434607262, (8, 4): 5.430564953867, (5, 5): 6.181036391069}
TRAIN_RANKS = {
    (10, 3): {1e-3: (4, 4), 1e-6: (6, 6), 1e-9: (8, 8), 1e-12: (10, 10)},
    (8, 4): {1e-3: (4, 4, 4), 1e-6: (6, 7, 6), 1e-9: (8, 9, 8), 1e-12: (8, 11, 8)},
    (5, 5): {1e-3: (4, 4, 4, 4), 1e-6: (5, 6, 6, 5), 1e-9: (5, 8, 8, 5), 1e-12: (5, 9, 9, 5)},
}


@pytest.mark.parametrize("size", NORMS, ids=str)
def test_trains_of_hilbert_tensors_have_their_known_norms_and_ranks(size: tuple[int, int]) -> None:
    x = hilbert(*size)
    assert np.linalg.norm(x) == pytest.approx(NORMS[size], abs=1e-11)
    for tol, ranks in TRAIN_RANKS[size].items():
        for method in (TTSVD(tol=tol), RandomizedTTSVD(tol=tol)):
            fit = method(x, generator=0)
            assert tuple(fit.value.ranks.values()) == ranks
            assert true_error(x, fit.value) <= tol * (1 + 1e-9)
            assert fit.error == pytest.approx(true_error(x, fit.value), rel=1e-2, abs=1e-14)


@pytest.mark.parametrize("tol, rank", [(1e-3, 4), (1e-6, 6), (1e-9, 8), (1e-12, 10)])
def test_hilbert_tensors_have_their_known_multilinear_ranks(tol: float, rank: int) -> None:
    x = hilbert(10, 3)
    for method in (HOSVD(tol=tol), STHOSVD(tol=tol), RandomizedHOSVD(tol=tol)):
        fit = method(x, generator=0)
        assert set(fit.value.ranks.values()) == {rank}
        assert true_error(x, fit.value) <= tol * (1 + 1e-9)


def test_the_hilbert_tensor_has_its_known_singular_values() -> None:
    core = HOSVD()(hilbert(10, 3), 10).value.core
    expected = [3.073431, 0.6147888, 8.332694e-2, 7.833473e-3, 5.606921e-4, 3.063581e-5]
    np.testing.assert_allclose(np.linalg.norm(core.reshape(10, -1), axis=1)[:6], expected, rtol=1e-6)


def test_cross_approximation_finds_a_hilbert_tensor_from_its_formula() -> None:
    fit = TTCross(tol=1e-9)(lambda i: 1 / (1 + i.sum(axis=1)), (8,) * 4, like=np.zeros(()), generator=0)
    assert true_error(hilbert(8, 4), fit.value) < 1e-8 and max(fit.value.ranks.values()) <= 10


# Quantised functions -------------------------------------------------------------------------------------

T = np.arange(2**10) / 2**10
QUANTISED = {
    "exp": (np.exp(T), 1, 1e-11),
    "sin": (np.sin(7 * T), 2, 1e-11),
    "t": (T, 2, 1e-11),
    "t^3": (T**3, 4, 1e-11),
    "step": ((T < 1 / 3).astype(float), 2, 1e-11),
    "1/(1+t)": (1 / (1 + T), 5, 1e-11),
}


@pytest.mark.parametrize("function", QUANTISED)
def test_quantised_functions_have_their_known_ranks(function: str) -> None:
    values, rank, tol = QUANTISED[function]
    ranks = TTSVD(tol=tol)(values.reshape((2,) * 10)).value.ranks
    assert max(ranks.values()) <= rank
    if function == "t^3":
        assert tuple(ranks.values()) == (2, 4, 4, 4, 4, 4, 4, 4, 2)


# Rank one ------------------------------------------------------------------------------------------------

# Kolda & Mayo 2011, example 3.5: the symmetric tensor of Kofidis & Regalia.
ENTRIES = {
    (1, 1, 1, 1): 0.2883,
    (1, 1, 1, 2): -0.0031,
    (1, 1, 1, 3): 0.1973,
    (1, 1, 2, 2): -0.2485,
    (1, 1, 2, 3): -0.2939,
    (1, 1, 3, 3): 0.3847,
    (1, 2, 2, 2): 0.2972,
    (1, 2, 2, 3): 0.1862,
    (1, 2, 3, 3): 0.0919,
    (1, 3, 3, 3): -0.3619,
    (2, 2, 2, 2): 0.1241,
    (2, 2, 2, 3): -0.3420,
    (2, 2, 3, 3): 0.2127,
    (2, 3, 3, 3): 0.2727,
    (3, 3, 3, 3): -0.3054,
}


def kolda_mayo() -> np.ndarray:
    x = np.zeros((3, 3, 3, 3))
    for index, value in ENTRIES.items():
        for place in permutations(index):
            x[tuple(k - 1 for k in place)] = value
    return x


def test_the_best_rank_one_approximation_of_kolda_and_mayo_is_found_from_random_starts() -> None:
    x = kolda_mayo()
    assert np.linalg.norm(x) == pytest.approx(2.252530648, abs=1e-9)
    fit = HOOI(tol=1e-12, max_steps=200, restarts=6).fit(x, 1, generator=0)
    assert abs(float(fit.value.core[0, 0, 0, 0])) == pytest.approx(1.0954, abs=5e-5)
    assert fit.error == pytest.approx((1 - (1.0954 / 2.252530648) ** 2) ** 0.5, abs=1e-4)
    vectors = [np.abs(m[:, 0]) for m in fit.value.matrices]
    for v in vectors:
        np.testing.assert_allclose(v, [0.5915, 0.7467, 0.3043], atol=1e-3)


def test_restarts_never_make_the_error_larger() -> None:
    x = np.random.default_rng(0).standard_normal((5, 6, 7))
    once, often = (HOOI(restarts=n).fit(x, 1, generator=0) for n in (0, 4))
    assert often.error <= once.error
    with pytest.raises(OptionError, match="restarts came as -1"):
        HOOI(restarts=-1)


def test_sweeps_of_hooi_never_make_the_error_larger() -> None:
    for shape, ranks in (((20, 22, 9), (3, 4, 2)), ((6, 7, 8, 9), (2, 3, 2, 4)), ((30, 40, 3), (5, 4, None))):
        x = np.random.default_rng(1).standard_normal(shape)
        fit = HOOI(tol=1e-9, max_steps=40).fit(x, ranks)
        assert all(b <= a * (1 + 1e-12) for a, b in zip(fit.trace, fit.trace[1:], strict=False))
        assert fit.error == pytest.approx(true_error(x, fit.value), rel=1e-10)


# Edge cases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL, ids=name)
def test_integers_give_the_right_answer(method: Method[Any]) -> None:
    x = np.arange(60).reshape(3, 4, 5)
    fit = method(x, 2, generator=0)
    np.testing.assert_allclose(fit.value.dense(), x, atol=1e-10)
    assert fit.value.dtype == np.float64


@pytest.mark.parametrize("method", ALL, ids=name)
def test_a_vector_is_itself(method: Method[Any]) -> None:
    x = np.array([3.0, 0.0, -4.0])
    fit = method(x, 2, generator=0) if method in TUCKER else method(x, (), generator=0)
    np.testing.assert_allclose(fit.value.dense(), x, atol=1e-14)
    assert fit.error < 1e-14


@pytest.mark.parametrize("method", ALL, ids=name)
@pytest.mark.parametrize("shape", [(3, 4), (1, 5, 1), (2, 3, 4), (9, 2, 2)], ids=str)
def test_ranks_above_the_sizes_are_cut(method: Method[Any], shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    fit = method(x, 99, generator=0)
    assert fit.value.ranks == method.format.full(shape).ranks
    np.testing.assert_allclose(fit.value.dense(), x, atol=1e-12)


@pytest.mark.parametrize("method", ALL, ids=name)
def test_a_zero_tensor_is_itself_at_any_tolerance_and_rank_zero_is_refused(method: Method[Any]) -> None:
    x = np.zeros((3, 4, 5))
    assert method(x, 2, generator=0).error == 0 and not method(x, 2, generator=0).value.dense().any()
    if method.tolerant:
        fit = type(method)(tol=0.1)(x, generator=0)
        assert fit.error == 0 and set(fit.value.ranks.values()) == {1}
    with pytest.raises(RankError):
        method(x, 0, generator=0)


@pytest.mark.parametrize("method", [HOSVD, STHOSVD, TTSVD, RandomizedHOSVD, RandomizedTTSVD])
@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-4, 1e-6, 1e-7, 1e-10])
def test_tolerances_hold_where_singular_values_fall_steeply(method: Any, tol: float) -> None:
    rng = np.random.default_rng(0)
    x = sum(
        0.2**k * np.einsum("i,j,k->ijk", *(rng.standard_normal(n) for n in (60, 9, 70))) for k in range(20)
    )
    for dtype in ("float64", "complex128"):
        y = x.astype(dtype) * (1 if dtype == "float64" else 1 + 2j)
        fit = method(tol=tol)(y, generator=0)
        assert true_error(y, fit.value) <= tol * (1 + 1e-9)
        assert fit.error == pytest.approx(true_error(y, fit.value), rel=1e-3, abs=1e-14)


def test_cores_beside_the_last_cut_are_orthonormal() -> None:
    x = np.random.default_rng(0).standard_normal((6, 3, 4, 5))
    cores = TTSVD()(x, (3, 5, 3)).value.cores
    grams = []
    for core in cores:
        left, right = core.reshape(-1, core.shape[-1]), core.reshape(core.shape[0], -1)
        grams.append(
            (
                np.allclose(left.T @ left, np.eye(len(left.T))),
                np.allclose(right @ right.T, np.eye(len(right))),
            )
        )
    free = [k for k, (left, right) in enumerate(grams) if not (left or right)]
    assert len(free) == 1
    assert all(grams[k][0] for k in range(free[0])) and all(grams[k][1] for k in range(free[0] + 1, 4))


def test_modes_are_taken_in_the_cheapest_order() -> None:
    network = Tucker.skeleton((100, 100, 10, 8), (50, 5, 5, None))
    assert [k for k, _ in cheapest_first((100, 100, 10, 8), network)] == [2, 1, 0]


# Memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [TTSVD, STHOSVD, HOSVD, RandomizedTTSVD, RandomizedHOSVD])
@pytest.mark.parametrize("tol", [1e-2, 1e-6, 1e-9])
def test_little_memory_is_needed_beside_the_tensor(
    method: Any, tol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 2**15)
    x = hilbert(40, 4)
    tracemalloc.start()
    fit = method(tol=tol)(x, generator=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fit.error <= tol
    assert peak < 0.75 * x.nbytes


def test_trains_are_trains() -> None:
    assert isinstance(RandomizedTTSVD()(np.ones((3, 4)), 1, generator=0).value, TensorTrain)


def test_options_that_are_no_numbers_are_refused() -> None:
    for tol in (None, "a", 1j):
        with pytest.raises(OptionError, match=r"tol came as .*\nGive a relative error from 0 up to 1"):
            HOSVD(tol=tol)
    for steps in (1.5, None, 0):
        with pytest.raises(OptionError, match=r"max_steps came as .*\nGive a whole number of 1 or more"):
            HOOI(max_steps=steps)
