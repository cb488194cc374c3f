"""Leading singular vectors by Gram matrices: as good as the SVD, without unfoldings."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.algebra import unfold
from tenfold.core import pieces
from tenfold.core.leading import improved, leading
from tenfold.core.linalg import orthonormalise
from tenfold.core.pieces import frobenius, mode_gram, outside, slabs

DTYPES = ["float64", "complex128"]


def numbers(x: Any) -> np.ndarray:
    return np.asarray(x)


def draw(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    imaginary = 1j * rng.standard_normal(shape) if dtype.startswith("complex") else 0.0
    return rng.standard_normal(shape) + imaginary


def with_spectrum(values: Any, shape: tuple[int, int], dtype: str = "float64") -> np.ndarray:
    rng = np.random.default_rng(0)
    imaginary = 1j if dtype.startswith("complex") else 0.0
    u, v = (
        np.linalg.qr(
            rng.standard_normal((n, len(values))) + imaginary * rng.standard_normal((n, len(values)))
        )[0]
        for n in shape
    )
    return ((u * np.asarray(values)) @ v.conj().T).astype(dtype)


def distance(x: np.ndarray, basis: np.ndarray) -> float:
    return float(np.linalg.norm(x - basis @ (basis.conj().T @ x)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 6, 7), (3, 2, 40), (40, 2, 3), (2, 9, 2, 3), (8, 5)], ids=str)
def test_the_gram_matrix_of_a_mode_is_that_of_its_unfolding(
    shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = draw(shape, dtype)
    for size in (7, 60, 10**6):
        monkeypatch.setattr(pieces, "PIECE", size)
        for mode in range(len(shape)):
            m = numbers(unfold(x, mode))
            np.testing.assert_allclose(numbers(mode_gram(x, mode)), m @ m.conj().T, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_library_finds_leading_vectors(library: Any, dtype: str) -> None:
    assert_leading(library.normal(5, 6, 7, dtype=dtype), 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 3, 5, 99])
@pytest.mark.parametrize("shape", [(5, 6, 7), (3, 2, 40), (40, 2, 3), (4, 3)], ids=str)
def test_leading_vectors_discard_the_least(shape: tuple[int, ...], rank: int, dtype: str) -> None:
    assert_leading(draw(shape, dtype), rank)


def assert_leading(x: Any, rank: int) -> None:
    for mode in range(x.ndim):
        basis, discarded = leading(x, mode, rank)
        m = numbers(unfold(x, mode))
        best = np.linalg.norm(np.linalg.svd(m, compute_uv=False)[rank:])
        assert discarded == pytest.approx(best, rel=1e-10, abs=1e-12)
        assert distance(m, numbers(basis)) == pytest.approx(best, rel=1e-10, abs=1e-12)
        assert outside(x, mode, basis) == pytest.approx(best, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("dtype", [*DTYPES, "float32"])
@pytest.mark.parametrize("shape", [(30, 200), (30, 40), (200, 30)], ids=str)
def test_a_steep_spectrum_keeps_all_digits(shape: tuple[int, int], dtype: str) -> None:
    values = 10.0 ** -np.arange(0, 15, 0.5)
    x = with_spectrum(values, shape, dtype)
    eps = float(np.finfo(dtype).eps)
    for rank in range(1, 30, 2):
        basis, discarded = leading(x, 0, rank)
        best, true = np.linalg.norm(values[rank:]), distance(x, basis)
        assert true <= 1.01 * best + 10 * eps
        assert discarded == pytest.approx(true, rel=1e-2, abs=20 * eps)


@pytest.mark.parametrize("dtype", [*DTYPES, "float32"])
@pytest.mark.parametrize("shape", [(30, 200), (30, 40), (200, 30)], ids=str)
@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-4, 1e-5, 1e-6, 3e-7, 1e-7, 1e-9, 1e-12])
def test_a_tolerance_is_kept_with_the_fewest_vectors(shape: tuple[int, int], dtype: str, tol: float) -> None:
    values = 2.0 ** -np.arange(30.0)
    if tol < 30 * np.finfo(dtype).eps:
        pytest.skip("below the precision")
    x = with_spectrum(values, shape, dtype)
    limit = tol * float(np.linalg.norm(x))
    basis, discarded = leading(x, 0, 30, limit)
    assert discarded <= limit
    assert distance(x.astype("complex128"), basis.astype("complex128")) <= limit * (
        1.05 if dtype == "float32" else 1 + 1e-9
    )
    least = next(r for r in range(1, 31) if np.linalg.norm(values[r:]) <= limit)
    assert least <= basis.shape[1] <= least + 1


def test_tiny_numbers_do_not_vanish(library: Any) -> None:
    for scale, dtype in ((1e-30, "float32"), (1e-200, "float64")):
        x = library.array(np.array(with_spectrum([4.0, 3.0, 1.0], (5, 40)) * scale), dtype)
        basis, discarded = leading(x, 0, 2)
        assert basis.shape == (5, 2)
        assert frobenius(x) == pytest.approx(26**0.5 * scale, rel=1e-5)
        assert discarded == pytest.approx(scale, rel=1e-4)


def test_an_improved_basis_never_discards_more_and_comes_to_the_best() -> None:
    x = draw((20, 6, 9), "float64")
    basis, _ = orthonormalise(draw((6, 2), "float64"))
    best, lost = leading(x, 1, 2)[1], outside(x, 1, basis)
    for _ in range(200):
        basis = improved(x, 1, basis)
        assert outside(x, 1, basis) <= lost * (1 + 1e-12)
        lost = outside(x, 1, basis)
    assert lost == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 4, 6])
@pytest.mark.parametrize(
    "spectrum", [[4.0, 3.0, 2.0, 1.0, 0.5, 0.1], [1.0, 1e-7, 0.0, 0.0, 0.0, 0.0], [0.0] * 6]
)
def test_a_basis_of_any_rank_is_improved_whatever_the_spectrum(
    library: Any, rank: int, spectrum: list[float]
) -> None:
    x = library.array(with_spectrum(spectrum, (6, 40)))
    basis, _ = orthonormalise(library.normal(6, rank))
    found = improved(x, 0, basis)
    inner = np.asarray(found).T @ np.asarray(found)
    np.testing.assert_allclose(inner, np.eye(rank), atol=1e-12)
    assert outside(x, 0, found) <= outside(x, 0, basis) * (1 + 1e-12) + 1e-14 * frobenius(x)


def test_slabs_cover_a_tensor_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 50)
    for shape in ((5, 40), (40, 5, 2), (7,), (1, 1), (3, 0)):
        seen = np.zeros(shape, dtype=int)
        for where in slabs(shape):
            seen[where] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_no_copy_of_a_large_tensor_is_made(tol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 2**12)
    x = 1 / (1.0 + sum(np.meshgrid(*[np.arange(28.0)] * 4, indexing="ij")))
    tracemalloc.start()
    for mode in (0, 2, 3):
        leading(x, mode, 28, tol * float(np.linalg.norm(x)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * x.nbytes


def test_gradients_flow_through_the_svd() -> None:
    x = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def projection(x: torch.Tensor) -> torch.Tensor:
        basis, _ = leading(x, 0, 2)
        return basis @ (basis.T @ x)

    assert torch.autograd.gradcheck(projection, x)
