"""What ranks cost, and the spectra that candidates show."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tenfold.formats import CP, LowRank, TensorTrain, Tucker
from tenfold.ranks import Budget, Candidate
from tenfold.ranks.spectra import slice_spectrum, unfolding_spectrum

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 10, 4))


@pytest.mark.parametrize("form", [Tucker, TensorTrain, CP])
@pytest.mark.parametrize("amount", [60, 150, 300])
def test_within_is_the_largest_uniform_fraction_of_the_format(form: type, amount: int) -> None:
    c = Candidate("w", form, (12, 10, 4), (), lambda: X)
    assert c.within(amount) == form.ranks_within((12, 10, 4), amount)
    assert c.within(4 * amount, Budget(bytes=1.0)) == c.within(amount)


def test_flops_are_counted_once_for_each_ranks() -> None:
    calls = []
    c = Candidate("w", LowRank, (8, 8), (), lambda: np.eye(8), flops=lambda r: calls.append(r) or 7)
    assert c.cost({"R": 2}, "flops") == c.cost({"R": 2}, "flops") == c.cost(None, "flops") == 7
    assert calls == [{"R": 2}, None]


def test_the_weight_in_the_metric_of_the_data_takes_the_place_of_the_weight() -> None:
    c = Candidate("w", LowRank, (4, 4), (), lambda: np.eye(4), weighted=lambda: 3 * np.eye(4))
    np.testing.assert_allclose(c.spectra("R")[0], [3.0] * 4)


def test_spectra_are_taken_once() -> None:
    feed: Iterator[np.ndarray] = iter([X])
    c = Candidate("w", Tucker, (12, 10, 4), (1, 2), lambda: next(feed))
    np.testing.assert_array_equal(c.spectra("R0")[0], c.spectra("R0")[0])


def test_spectra_are_float64_of_any_library() -> None:
    ours = unfolding_spectrum(torch.tensor(X, requires_grad=True), (0,))
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, np.linalg.svd(X.reshape(12, -1), compute_uv=False))
    half = unfolding_spectrum(torch.tensor(X, dtype=torch.bfloat16), (0,))
    np.testing.assert_allclose(half, ours, rtol=1e-2)


@pytest.mark.parametrize("shape", [(5, 7), (6, 5, 4), (3, 6, 2, 5)])
def test_slices_hold_all_the_energy_and_vanish_at_the_full_rank(shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=shape)
    found = slice_spectrum(x)
    np.testing.assert_allclose(np.sum(found**2), np.sum(x**2))
    assert len(found) == CP.full(shape).ranks["R"]
    assert np.all(np.diff(found) <= 0)


def test_slices_see_a_tensor_that_is_one_slice_in_another_basis() -> None:
    matrix = RNG.normal(size=(8, 3)) @ RNG.normal(size=(3, 9))
    found = slice_spectrum(np.multiply.outer(matrix, RNG.normal(size=4)))
    assert np.sum(found > 1e-9 * found[0]) == 3
