"""Every registered method obeys the laws, on every array library."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import OptionError, RankError, ShapeError
from tenfold.decompose import (
    CPALS,
    CPEPC,
    HOOI,
    HOSVD,
    STHOSVD,
    TRALS,
    TTSVD,
    BlockTermALS,
    BlockTermGN,
    CPLeverage,
    Method,
    NetworkALS,
    RandomizedSVD,
    TruncatedSVD,
    methods,
)
from tenfold.formats import CP, TensorTrain, Tucker
from tenfold.testing import check_method
from tenfold.testing.libraries import LIBRARIES

EXACT: dict[str, Method[Any]] = {
    "cp_als": CPALS(tol=1e-4, max_steps=1000, restarts=3),
    "cp_epc": CPEPC(fit_tol=1e-4, fit_steps=1000, restarts=3, max_steps=20),
    "hooi": HOOI(tol=1e-12, max_steps=100),
    "network_als": NetworkALS(tol=1e-4),
    "tr_als": TRALS(tol=1e-4, max_steps=1000, finalists=3),
    "btd_als": BlockTermALS(tol=1e-4, max_steps=1000),
    "btd_gn": BlockTermGN(tol=1e-4),
    "cp_leverage": CPLeverage(tol=1e-6, max_steps=1000, restarts=3),
}
"""Options under which the iterative methods converge to full precision."""

LIKES = [np.zeros(()), torch.zeros((), dtype=torch.float64)]


@pytest.mark.parametrize("like", LIKES, ids=lambda like: type(like).__module__)
@pytest.mark.parametrize("name", methods)
def test_method_obeys_every_law(name: str, like: Any) -> None:
    check_method(methods[name](), like=like, exact=EXACT.get(name))


QUICK = {"jax": ("svd",), "dask": ("svd", "st_hosvd")}
"""Methods that are checked by default; JAX compiles every operation for every shape."""
FURTHER = [
    pytest.param(name, library, marks=() if name in QUICK[library] else pytest.mark.slow)
    for name in methods
    for library in LIBRARIES
    if library not in ("numpy", "torch", "cupy")
]


@pytest.mark.parametrize("name, library", FURTHER)
def test_method_obeys_every_law_on_other_libraries(name: str, library: str) -> None:
    check_method(methods[name](), like=LIBRARIES[library], exact=EXACT.get(name))


@pytest.mark.parametrize("name", methods)
def test_a_method_without_ranks_says_what_it_needs(name: str) -> None:
    method = methods[name]()
    with pytest.raises(RankError) as error:
        method(np.ones((3, 4)))
    hint = (
        f"Give ranks, or a tolerance: {type(method).__name__}(tol=1e-2)."
        if method.tolerant
        else "Give ranks."
    )
    assert str(error.value) == f"{type(method).__name__} came without ranks.\n{hint}"


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_tensors_without_entries_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="cannot be decomposed"):
        HOSVD()(np.ones(shape), 1)


@pytest.mark.parametrize(
    "options",
    [
        (TTSVD, {"tol": -1.0}),
        (HOSVD, {"tol": 1.0}),
        (HOOI, {"max_steps": 0}),
        (CPALS, {"start": "zeros"}),
        (CPALS, {"ridge": -1.0}),
        (CPALS, {"restarts": 0}),
        (CPEPC, {"slack": 1.0}),
        (CPEPC, {"max_steps": 0}),
        (CPEPC, {"fit_steps": 0}),
        (RandomizedSVD, {"check": 1.0}),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: tuple[type[Method[Any]], dict[str, Any]]) -> None:
    method, values = options
    with pytest.raises(OptionError):
        method(**values)


# Known values --------------------------------------------------------------------------------------------

# De Lathauwer, De Moor & Vandewalle 2000, example 4: the unfolding of mode 1.
UNFOLDED = [
    [0.9073, 0.7158, -0.3698, 1.7842, 1.6970, 0.0151, 2.1236, -0.0740, 1.4429],
    [0.8924, -0.4898, 2.4288, 1.7753, -1.5077, 4.0337, -0.6631, 1.9103, -1.7495],
    [2.1488, 0.3054, 2.3753, 4.2495, 0.3207, 4.7146, 1.8260, 2.1335, -0.2716],
]


def test_hosvd_has_the_singular_values_of_its_paper() -> None:
    x = np.array(UNFOLDED).reshape(3, 3, 3)
    core = HOSVD()(x, 3).value.core
    expected = [(9.3187, 4.6665, 0.0001), (9.3059, 4.6592, 0.5543), (9.2823, 4.6250, 1.0311)]
    for k, values in enumerate(expected):
        slices = np.moveaxis(core, k, 0).reshape(3, -1)
        np.testing.assert_allclose(np.linalg.norm(slices, axis=1), values, atol=2e-4)
        np.testing.assert_allclose(slices @ slices.T, np.diag(np.diag(slices @ slices.T)), atol=1e-10)


GRID = sum(np.meshgrid(*[np.linspace(0, 1, 6)] * 5, indexing="ij"))
FUNCTIONS = {
    "exp(s)": (np.exp(GRID), 1),
    "s": (GRID, 2),
    "sin(s)": (np.sin(GRID), 2),
    "s^2": (GRID**2, 3),
    "s^3": (GRID**3, 4),
    "s sin(s)": (GRID * np.sin(GRID), 4),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_of_a_sum_have_their_known_ranks(function: str) -> None:
    x, rank = FUNCTIONS[function]
    assert set(TTSVD(tol=1e-10)(x).value.ranks.values()) == {rank}
    assert set(STHOSVD(tol=1e-10)(x).value.ranks.values()) == {rank}


def hilbert(n: int, order: int) -> np.ndarray:
    """1 / (i + j + ... - order + 1), counted from 1."""
    return 1 / (1 + sum(np.meshgrid(*[np.arange(n)] * order, indexing="ij")))


@pytest.mark.parametrize(
    "n, order, tol, ranks",
    [
        (10, 3, 1e-3, (4, 4)),
        (10, 3, 1e-6, (6, 6)),
        (10, 3, 1e-9, (8, 8)),
        (8, 4, 1e-6, (6, 7, 6)),
        (5, 5, 1e-9, (5, 8, 8, 5)),
    ],
)
def test_hilbert_tensors_have_their_known_ranks(
    n: int, order: int, tol: float, ranks: tuple[int, ...]
) -> None:
    assert tuple(TTSVD(tol=tol)(hilbert(n, order)).value.ranks.values()) == ranks


W = np.zeros((2, 2, 2))
W[0, 0, 1] = W[0, 1, 0] = W[1, 0, 0] = 1


def test_the_best_rank_one_approximation_of_w_has_its_known_error() -> None:
    fit = CPALS(ridge=0.0, tol=1e-10, restarts=3).fit(W, 1, generator=0)
    assert fit.error == pytest.approx(5**0.5 / 3, abs=1e-6)


def test_hooi_may_stay_at_a_saddle_point_of_w_but_never_beats_the_best() -> None:
    assert 5**0.5 / 3 - 1e-9 <= HOOI(tol=1e-12).fit(W, 1).error <= STHOSVD()(W, 1).error + 1e-12


def test_a_rank_two_sequence_approaches_w_with_growing_terms() -> None:
    for n in (10, 100, 1000):
        a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
        factor = np.stack([(a + b / n) * n ** (1 / 3), -a * n ** (1 / 3)], axis=1)
        assert np.linalg.norm(CP((factor,) * 3).dense() - W) == pytest.approx((3 / n**2 + 1 / n**4) ** 0.5)


def test_the_kruskal_tensor_has_rank_three_over_the_reals_and_two_over_the_complex_numbers() -> None:
    x = np.stack([np.eye(2), np.array([[0.0, 1.0], [-1.0, 0.0]])], axis=2)
    method = CPALS(tol=1e-6, max_steps=500, restarts=3)
    assert method.fit(x, 2, generator=0).error > 1e-3
    assert method.fit(x.astype(np.complex128), 2, generator=0).error < 1e-10
    assert method.fit(x, 3, generator=0).error < 1e-6


# The ridge of CP ------------------------------------------------------------------------------------------


def component_norms(value: CP) -> np.ndarray:
    return np.prod([np.linalg.norm(f, axis=0) for f in value.matrices], axis=0)


def test_the_ridge_bounds_components_at_little_error() -> None:
    x = np.random.default_rng(0).standard_normal((16, 16, 9))
    free, bound = (CPALS(ridge=ridge, tol=0, max_steps=100).fit(x, 40, generator=0) for ridge in (0.0, 0.03))
    assert component_norms(bound.value).sum() < 0.8 * component_norms(free.value).sum()
    assert bound.error < 1.01 * free.error


def test_components_have_their_norm_spread_evenly() -> None:
    x = np.random.default_rng(0).standard_normal((5, 6, 7))
    norms = [np.linalg.norm(f, axis=0) for f in CPALS().fit(x, 4, generator=0).value.matrices]
    np.testing.assert_allclose(norms[0], norms[1])
    np.testing.assert_allclose(norms[0], norms[2])


@pytest.mark.parametrize("start", ["hosvd", "slices", "random"])
@pytest.mark.parametrize("shape", [(5,), (5, 4), (4, 5, 3), (3, 4, 2, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_every_start_of_cp_works_at_every_order(start: str, shape: tuple[int, ...], dtype: str) -> None:
    if start == "slices" and len(shape) == 1:
        pytest.skip("a vector has no slices")
    x = CP.random(shape, 2, like=np.zeros((), dtype=dtype), generator=3).dense()
    for rank in (1, 2, 9):
        fit = CPALS(start=start).fit(x, rank, generator=0)
        assert fit.error <= 1 and fit.value.dtype == x.dtype
        assert len(fit.trace) == fit.steps


def test_restarts_keep_the_best() -> None:
    x = CP.random((4, 5, 6), 4, like=np.zeros(()), generator=0).dense()
    errors = [CPALS(start="random", restarts=n).fit(x, 4, generator=0).error for n in (1, 3)]
    assert errors[1] <= errors[0]


def test_a_method_is_its_options() -> None:
    assert CPALS() == CPALS() and CPALS(tol=1e-3) != CPALS()
    assert dataclasses.asdict(TruncatedSVD(tol=0.1)) == {"tol": 0.1}


def test_a_tolerance_and_ranks_both_bound_the_fit() -> None:
    x = np.random.default_rng(0).standard_normal((6, 7, 8))
    alone = TTSVD(tol=0.8)(x).value.ranks
    assert 1 < alone["R1"] < 6 and alone["R2"] > 2
    assert TTSVD(tol=0.8)(x, (6, 2)).value.ranks == {"R1": alone["R1"], "R2": 2}
    assert TTSVD(tol=1e-9)(x, 3).value.ranks == {"R1": 3, "R2": 3}
    assert isinstance(TTSVD()(x, 2).value, TensorTrain) and isinstance(HOSVD()(x, 2).value, Tucker)
