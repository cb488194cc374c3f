"""Sums of Kronecker products: optimal, of any order, on any library."""

from typing import Any

import numpy as np
import pytest

from tenfold.algebra import split_blocks
from tenfold.core.errors import RankError, ShapeError
from tenfold.decompose import KroneckerSVD, nearest_kronecker


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_that_of_eckart_and_young_for_the_rearranged_matrix(
    library: Any, rank: int, dtype: str
) -> None:
    x = library.normal(6, 20, dtype=dtype)
    fit = nearest_kronecker(x, (2, 5), rank)
    rows = np.asarray(split_blocks(x, (2, 5))).reshape(10, 12)
    s = np.linalg.svd(rows, compute_uv=False)
    assert fit.error == pytest.approx(np.linalg.norm(s[rank:]) / np.linalg.norm(s), rel=1e-9)
    true = np.linalg.norm(np.asarray(x) - np.asarray(fit.value.merged())) / np.linalg.norm(np.asarray(x))
    assert fit.error == pytest.approx(true, rel=1e-9)


def test_a_sum_of_kronecker_products_of_order_three_is_found() -> None:
    terms = [(rng(k).standard_normal((2, 3, 2)), rng(9 + k).standard_normal((4, 2, 5))) for k in range(3)]
    x = sum(np.kron(a, b) for a, b in terms)
    fit = nearest_kronecker(x, (2, 3, 2), tol=1e-10)
    assert fit.value.ranks == {"R": 3} and fit.value.left.shape == (3, 2, 3, 2)
    np.testing.assert_allclose(fit.value.merged(), x, atol=1e-12)


@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-2])
def test_a_tolerance_is_kept_by_the_shortest_sum(tol: float) -> None:
    x = rng().standard_normal((12, 12)) @ np.diag(0.5 ** np.arange(12))
    fit = nearest_kronecker(x, (3, 4), tol=tol)
    assert fit.error <= tol
    if fit.value.ranks["R"] > 1:
        assert nearest_kronecker(x, (3, 4), fit.value.ranks["R"] - 1).error > tol


def test_factors_are_balanced() -> None:
    value = nearest_kronecker(rng().standard_normal((6, 6)), (2, 3), 4).value
    np.testing.assert_allclose(
        np.linalg.norm(value.left.reshape(4, -1), axis=1), np.linalg.norm(value.right.reshape(4, -1), axis=1)
    )


def test_integers_give_the_right_answer_and_zero_is_zero() -> None:
    x = np.kron(np.arange(6).reshape(2, 3), np.arange(4).reshape(2, 2))
    np.testing.assert_allclose(nearest_kronecker(x, (2, 3), 1).value.merged(), x, atol=1e-12)
    zero = nearest_kronecker(np.zeros((4, 6)), (2, 2), 2)
    assert zero.error == 0 and not zero.value.merged().any()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="cannot be cut into 2 × 4 blocks"):
        nearest_kronecker(np.ones((4, 6)), (2, 4), 1)
    with pytest.raises(RankError, match="came without ranks"):
        nearest_kronecker(np.ones((4, 6)), (2, 3))
    with pytest.raises(ShapeError):
        KroneckerSVD()(np.ones((2, 3, 4)), 1)
