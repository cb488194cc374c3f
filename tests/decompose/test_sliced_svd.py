"""Matrices in slices: the best approximation, and the bound of ALDS on the whole."""

import numpy as np
import pytest

from tenfold.core.errors import OptionError, ShapeError
from tenfold.decompose import SlicedSVD, TruncatedSVD

RNG = np.random.default_rng(0)
SHAPES = [(6, 4, 5), (12, 8, 2), (3, 2, 9), (7, 1, 6), (5, 9, 1)]


def side_by_side(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], -1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_slice_is_at_its_best(shape: tuple[int, ...]) -> None:
    x = RNG.standard_normal(shape)
    value = SlicedSVD()(x, 2).value
    for s in range(shape[1]):
        best = TruncatedSVD()(x[:, s], 2).value
        np.testing.assert_allclose(value.left[s], best.left, atol=1e-10)
        np.testing.assert_allclose(value.right[s], best.right, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fall", [1.0, 0.6])
def test_the_error_of_the_whole_keeps_the_bound_of_alds(shape: tuple[int, ...], fall: float) -> None:
    """max_s σ_{j+1}(W_s) <= ‖W - Ŵ‖₂ <= sqrt(k) max_s σ_{j+1}(W_s)."""
    for _ in range(5):
        x = RNG.standard_normal(shape) * fall ** np.arange(shape[2])
        spectra = np.linalg.svd(x.transpose(1, 0, 2), compute_uv=False)
        for rank in range(1, min(shape[0], shape[2])):
            error = np.linalg.norm(side_by_side(x - SlicedSVD()(x, rank).value.dense()), ord=2)
            worst = spectra[:, rank].max()
            assert worst * (1 - 1e-10) <= error <= shape[1] ** 0.5 * worst * (1 + 1e-10)


def test_the_bound_of_alds_is_reached_from_both_sides() -> None:
    """By slices that lose the same direction, and by slices that lose orthogonal ones."""
    first, second = np.diag([2.0, 1.0, 0.0]), np.diag([2.0, 0.0, 1.0])
    for other, factor in ((first, 2**0.5), (second, 1.0)):
        x = np.stack([first, other], axis=1)
        assert np.linalg.norm(side_by_side(x - SlicedSVD()(x, 1).value.dense()), ord=2) == pytest.approx(
            factor
        )


def test_one_slice_is_a_truncated_svd() -> None:
    x = RNG.standard_normal((7, 6))
    sliced, whole = SlicedSVD()(x[:, None], 3), TruncatedSVD()(x, 3)
    assert sliced.error == pytest.approx(whole.error)
    np.testing.assert_allclose(sliced.value.dense()[:, 0], whole.value.dense())


def test_the_tolerance_is_of_the_whole() -> None:
    """A small slice of full rank need not be kept where a large one holds the energy."""
    large, small = np.outer([3.0, 4.0], [1.0, 2.0]), 1e-3 * np.eye(2)
    fit = SlicedSVD(tol=1e-2)(np.stack([large, small], axis=1))
    assert fit.value.ranks == {"R": 1}
    assert 0 < fit.error < 1e-3


def test_only_matrices_in_slices_are_held() -> None:
    with pytest.raises(ShapeError, match="SlicedLowRank does not hold tensors of order 2"):
        SlicedSVD()(np.ones((3, 4)), 1)
    with pytest.raises(OptionError, match="tol came as 1"):
        SlicedSVD(tol=1.0)
