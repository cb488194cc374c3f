"""What decompositions say is true where numbers are large, sums cancel, and values change."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.sparse import Sparse
from tenfold.decompose import (
    HOOI,
    HOSVD,
    HTSVD,
    STHOSVD,
    TRSVD,
    TTSVD,
    BlockTermALS,
    Method,
    RandomizedHOSVD,
    SlicedSVD,
    TruncatedSVD,
    TTCross,
)
from tenfold.decompose.residual import projection_error
from tenfold.decompose.weighted import decompose_weighted, root_of
from tenfold.formats import CP, LowRank, TensorRing, rounded
from tenfold.testing.compare import to_numpy

ORTHOGONAL = [STHOSVD(), HOSVD(), HOOI(), RandomizedHOSVD(), TTSVD(), HTSVD(), TRSVD(), TruncatedSVD()]


def test_entries_that_were_mapped_are_summed_anew() -> None:
    rng = np.random.default_rng(0)
    indices = np.concatenate([rng.integers(0, 4, (15, 3))] * 2)
    tensor = Sparse(indices, rng.standard_normal(30), (4, 5, 6))
    tensor.norm()
    mapped = tensor.map(lambda values: 10 * values)
    np.testing.assert_allclose(mapped.norm(), np.linalg.norm(mapped.dense()))
    fit = HOSVD()(mapped, 6)
    np.testing.assert_allclose(fit.value.dense(), mapped.dense(), atol=1e-10)


@pytest.mark.parametrize("share", [1e-3, 3e-3, 1e-1])
def test_the_error_of_a_rounded_ring_is_true_or_unknown_where_terms_cancel(share: float) -> None:
    like = torch.zeros(())
    x, z = (TensorRing.random((6, 5, 6, 5), 2, like=like, generator=seed) for seed in (0, 1))
    almost = (x + z * share) - x
    wanted, found = almost.dense(), rounded(almost, 3)
    error = float((found.value.dense() - wanted).norm() / wanted.norm())
    assert np.isnan(found.error) or found.error == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize("method", [TruncatedSVD(tol=0.3), SlicedSVD(tol=0.3)], ids=str)
@pytest.mark.parametrize("scale", [1e-30, 1e19])
def test_tolerances_are_kept_at_the_ends_of_float32(method: Method[Any], scale: float) -> None:
    shape = (6, 2, 5) if isinstance(method, SlicedSVD) else (6, 5)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    fit = method(matrix * scale)
    error = float((fit.value.dense() / scale - matrix).norm() / matrix.norm())
    assert 0 < fit.error <= 0.3 and fit.error == pytest.approx(error, rel=1e-3)


def test_projections_of_very_large_numbers_have_their_error() -> None:
    x = np.full((2, 2), 5e199)
    value = LowRank(np.ones((2, 1)), np.zeros((1, 2)))
    assert projection_error(x, value, 1e200, 0.6e200) == pytest.approx(0.8e200)


def test_gram_matrices_that_rounding_made_uneven_are_solved() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rng.standard_normal((3, 4, 2))
        x = np.einsum("ir,jr,kr->ijk", *(rng.standard_normal((n, 2)) for n in (3, 4, 2)))
        assert np.isfinite(BlockTermALS().fit(x, 7, generator=0).error)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_functions_are_asked_for_entries_inside_of_the_tensor(dtype: torch.dtype) -> None:
    asked: list[torch.Tensor] = []

    def function(indices: torch.Tensor) -> torch.Tensor:
        asked.append(indices[:, 0])
        return torch.ones(len(indices))

    TTCross(tol=1e-2).fit(function, (3001, 50), like=torch.zeros((), dtype=dtype), generator=0)
    seen = torch.cat(asked).unique()
    assert 0 <= int(seen.min()) <= int(seen.max()) < 3001 and bool((seen % 16 != 0).any())


def test_norms_in_half_precision_do_not_overflow() -> None:
    ones = torch.ones(300, 1, dtype=torch.float16)
    norm = CP((ones, ones)).norm()
    assert norm.dtype == torch.float16 and norm.item() == 300


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("method", ORTHOGONAL, ids=lambda m: type(m).__name__)
def test_factors_in_half_precision_do_not_overflow(method: Method[Any], library: Any) -> None:
    x = np.full((700, 700) if method.format is LowRank else (90, 90, 90), 200.0)
    fit = method.fit(library(x.astype(np.float16)), 1, generator=0)
    assert all(bool(abs(f).max() < np.inf) for f in fit.value.factors)
    assert "float16" in str(fit.value.dtype) and fit.error < 1e-3
    assert abs(to_numpy(fit.value.dense()) - x).max() < 1


def test_a_moment_in_half_precision_does_not_overflow() -> None:
    x = torch.full((90, 90, 90), 200.0).half()
    fit = decompose_weighted(STHOSVD(), x, 1, [None, root_of(torch.eye(90)), None])
    assert all(bool(f.isfinite().all()) for f in fit.value.factors)


@pytest.mark.parametrize("array", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_norms_of_whole_numbers_are_not_rounded_to_them(array: Any) -> None:
    ones = array(np.ones((2, 1), dtype=np.int64))
    assert float(CP((ones, ones, ones)).norm()) == pytest.approx(8**0.5)


@pytest.mark.parametrize("method, ranks", [(TTSVD(), (3, 2)), (HOOI(), 100), (HOSVD(), (None,) * 3)], ids=str)
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_fits_do_not_share_memory_with_the_tensor(method: Method[Any], ranks: Any, library: Any) -> None:
    x = library(np.random.default_rng(0).standard_normal((3, 4, 2)))
    value = method(x, ranks).value
    before = to_numpy(value.dense()).copy()
    x[:] = 7.0
    np.testing.assert_array_equal(to_numpy(value.dense()), before)


def test_entries_of_bonds_of_rank_0_are_0() -> None:
    zero = LowRank(np.zeros((4, 0)), np.zeros((0, 5)))
    np.testing.assert_array_equal(zero.at(np.array([[0, 1], [3, 4]])), [0.0, 0.0])
