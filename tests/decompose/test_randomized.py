"""Randomised decompositions are nearly as good as exact ones, and keep a tolerance for certain."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.arrays import adjoint
from tenfold.core.errors import OptionError
from tenfold.core.leading import leading
from tenfold.core.range_finder import RangeFinder
from tenfold.decompose import STHOSVD, TTSVD, Method, RandomizedHOSVD, RandomizedTTSVD
from tenfold.formats import TensorTrain, Tucker

FINDER = RangeFinder(oversampling=5, power_iterations=1, block=4)


def with_spectrum(values: Any, shape: tuple[int, int], dtype: str = "float64") -> np.ndarray:
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(draw(rng, (shape[0], len(values)), dtype))
    v, _ = np.linalg.qr(draw(rng, (shape[1], len(values)), dtype))
    return ((u * np.asarray(values)) @ v.conj().T).astype(dtype)


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    imaginary = 1j * rng.standard_normal(shape) if dtype.startswith("complex") else 0.0
    return rng.standard_normal(shape) + imaginary


def distance(x: Any, basis: Any) -> float:
    x, basis = np.asarray(x), np.asarray(basis)
    return float(np.linalg.norm(x - basis @ (basis.conj().T @ x)))


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize("rank", [1, 6])
def test_a_random_basis_is_nearly_the_best_and_knows_what_it_discards(dtype: str, rank: int) -> None:
    x = with_spectrum(np.arange(1.0, 201) ** -1.0, (200, 600), dtype)
    basis, lost = FINDER(x, 0, rank, 0.0, np.random.default_rng(0))
    best = leading(x, 0, rank)[1]
    assert best * 0.9999 <= lost <= 1.05 * best
    assert lost == pytest.approx(distance(x, basis), rel=1e-4 if dtype == "float32" else 1e-9)
    np.testing.assert_allclose(
        adjoint(basis) @ basis, np.eye(rank), atol=1e-5 if dtype == "float32" else 1e-12
    )


@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-5, 1e-7, 1e-9, 1e-12])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_random_basis_keeps_its_tolerance_at_nearly_the_least_rank(tol: float, dtype: str) -> None:
    values = 0.3 ** np.arange(30.0)
    x = with_spectrum(values, (300, 400), dtype)
    whole = np.linalg.norm(values)
    basis, lost = FINDER(x, 0, 300, tol * whole, np.random.default_rng(0))
    assert distance(x, basis) <= tol * whole * (1 + 1e-9)
    assert lost == pytest.approx(distance(x, basis), rel=1e-3)
    least = next(r for r in range(31) if np.linalg.norm(values[r:]) <= tol * whole)
    assert least <= basis.shape[1] <= least + 1


def test_a_tolerance_is_kept_in_single_precision() -> None:
    x = with_spectrum(0.3 ** np.arange(30.0), (300, 400), "float32")
    for tol in (1e-1, 1e-3, 1e-5):
        basis, _ = FINDER(x, 0, 300, tol * float(np.linalg.norm(x)), np.random.default_rng(0))
        assert distance(x.astype("float64"), basis.astype("float64")) <= tol * np.linalg.norm(x) * 1.001


def test_blocks_grow_until_a_gram_matrix_is_cheaper() -> None:
    x = with_spectrum(np.ones(100), (300, 400))
    basis, lost = FINDER(x, 0, 300, 1e-8, np.random.default_rng(0))
    assert basis.shape[1] == 100 and lost < 1e-8


def test_the_rank_bounds_the_basis_of_a_tolerance() -> None:
    x = with_spectrum(np.arange(1.0, 201) ** -1.0, (300, 400))
    basis, lost = FINDER(x, 0, 7, 1e-6, np.random.default_rng(0))
    assert basis.shape[1] == 7 and lost == pytest.approx(distance(x, basis), rel=1e-9)


def test_a_middle_mode_is_sketched_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.einsum("ir,jr,kr->ijk", *(np.random.default_rng(0).standard_normal((n, 3)) for n in (40, 200, 11)))
    monkeypatch.setattr("tenfold.core.pieces.PIECE", 5000)
    basis, lost = FINDER(x, 1, 3, 0.0, np.random.default_rng(0))
    unfolded = np.moveaxis(x, 1, 0).reshape(200, -1)
    assert distance(unfolded, basis) < 1e-10 * np.linalg.norm(x) and lost < 1e-10 * np.linalg.norm(x)


def tucker_with_noise(noise: float) -> np.ndarray:
    x = Tucker.random((200, 150, 20), (4, 5, 3), like=np.zeros(()), generator=0).dense()
    return x + noise * np.linalg.norm(x) * normalised(x.shape)


def train_with_noise(noise: float) -> np.ndarray:
    x = TensorTrain.random((150, 5, 6, 160), (3, 4, 5), like=np.zeros(()), generator=0).dense()
    return x + noise * np.linalg.norm(x) * normalised(x.shape)


def normalised(shape: tuple[int, ...]) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal(shape)
    return x / np.linalg.norm(x)


CASES = [
    (RandomizedHOSVD(oversampling=5), STHOSVD(), tucker_with_noise, (4, 5, 3)),
    (RandomizedTTSVD(oversampling=5), TTSVD(), train_with_noise, (3, 4, 5)),
]


@pytest.mark.parametrize("method, exact, tensor, ranks", CASES, ids=["hosvd", "tt"])
@pytest.mark.parametrize("noise", [0.0, 1e-8, 1e-2])
def test_low_rank_and_noise_is_found_as_well_as_by_the_exact_method(
    method: Method[Any], exact: Method[Any], tensor: Any, ranks: tuple[int, ...], noise: float
) -> None:
    x = tensor(noise)
    found, best = method(x, ranks, generator=0), exact(x, ranks)
    assert found.error <= 1.01 * best.error + 1e-14
    true = np.linalg.norm(x - found.value.dense()) / np.linalg.norm(x)
    assert found.error == pytest.approx(true, rel=1e-4, abs=1e-14)
    again = method(torch.from_numpy(x), ranks, generator=0)
    assert again.error == pytest.approx(found.error, rel=1e-2, abs=1e-14)


@pytest.mark.parametrize("method, exact, tensor, ranks", CASES, ids=["hosvd", "tt"])
def test_a_tolerance_finds_the_ranks(method: Any, exact: Any, tensor: Any, ranks: tuple[int, ...]) -> None:
    x = tensor(1e-7)
    found = type(method)(tol=1e-5, block=4)(x, generator=0)
    assert tuple(found.value.ranks.values()) == ranks
    assert np.linalg.norm(x - found.value.dense()) <= 1e-5 * np.linalg.norm(x)


def test_torch_and_single_precision_pass(library: Any) -> None:
    x = library.array(tucker_with_noise(1e-2), "float32")
    fit = RandomizedHOSVD()(x, (4, 5, None), generator=0)
    assert fit.value.core.shape == (4, 5, 20) and fit.value.dtype == x.dtype and fit.error < 0.0101


@pytest.mark.parametrize("method", [RandomizedHOSVD, RandomizedTTSVD])
@pytest.mark.parametrize(
    "options", [{"oversampling": -1}, {"power_iterations": -1}, {"block": 0}, {"tol": 1.0}]
)
def test_options_out_of_range_are_refused(method: Any, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        method(**options)
