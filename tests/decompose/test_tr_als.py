"""Tensor rings by alternating least squares and Gauss–Newton steps."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import ShapeError
from tenfold.decompose import TRALS, TRSVD, NetworkGN
from tenfold.formats import TensorRing

EXACT = TRALS(tol=1e-4, max_steps=1000, restarts=8, finalists=4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "shape, rank, dtype",
    [((5, 4, 6), 2, "float64"), ((5, 5, 5, 5), 2, "float64"), ((6, 6, 6), 2, "complex128")],
    ids=str,
)
def test_rings_of_low_rank_are_recovered(shape: tuple[int, ...], rank: int, dtype: str, seed: int) -> None:
    x = TensorRing.random(shape, rank, like=np.zeros((), dtype=dtype), generator=100 + seed).dense()
    fit = EXACT.fit(x, rank, generator=seed)
    assert fit.error < 1e-10 and set(fit.value.ranks.values()) == {rank}


def test_rings_of_unequal_ranks_are_recovered_where_the_svd_is_not_exact() -> None:
    x = TensorRing.random((6, 5, 7, 4), (2, 3, 2, 2), like=np.zeros(()), generator=1).dense()
    assert TRSVD().fit(x, (2, 3, 2, 2)).error > 1e-2
    assert EXACT.fit(x, (2, 3, 2, 2), generator=0).error < 1e-10


def test_gauss_newton_ends_where_alternating_least_squares_does_in_fewer_steps() -> None:
    x = TensorRing.random((8, 8, 8), 3, like=np.zeros(()), generator=101).dense()
    options: dict[str, Any] = {"restarts": 6, "finalists": 3, "start": "random"}
    newton = NetworkGN("tr", tol=1e-4, **options).fit(x, 3, generator=1)
    alternating = TRALS(tol=1e-4, max_steps=1000, **options).fit(x, 3, generator=1)
    assert max(newton.error, alternating.error) < 1e-9
    assert newton.steps < alternating.steps


def test_noise_is_not_fitted_below_its_level() -> None:
    rng = np.random.default_rng(0)
    clean = TensorRing.random((8, 8, 8, 8), 2, like=np.zeros(()), generator=2).dense()
    noise = rng.standard_normal(clean.shape)
    x = clean + 0.01 * noise * np.linalg.norm(clean) / np.linalg.norm(noise)
    fit = TRALS().fit(x, 2, generator=0)
    assert 0.009 < fit.error < 0.01001
    assert np.linalg.norm(fit.value.dense() - clean) < 0.004 * np.linalg.norm(clean)


def test_it_lowers_the_error_of_its_start() -> None:
    x = np.random.default_rng(0).standard_normal((6, 7, 8))
    assert TRALS(restarts=1, finalists=1).fit(x, 2, generator=0).error < TRSVD().fit(x, 2).error


def test_torch_tensors_keep_their_library_and_precision() -> None:
    x = torch.tensor(TensorRing.random((5, 4, 6), 2, like=np.zeros(()), generator=0).dense())
    fit = EXACT.fit(x.float(), 2, generator=0)
    assert fit.value.dtype == torch.float32 and fit.error < 1e-5


def test_a_vector_is_no_ring() -> None:
    with pytest.raises(ShapeError):
        TRALS()(np.ones(4), 1)
