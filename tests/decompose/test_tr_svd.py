"""Ring by SVDs: the tolerance, how ranks are split, and what it cannot find."""

import numpy as np
import pytest
import torch

from tenfold.core.errors import OptionError
from tenfold.decompose import TRSVD, TTSVD
from tenfold.decompose.trains.tr_svd import splits
from tenfold.formats import TensorRing, TensorTrain
from tenfold.testing import check_method


def noise(*shape: int, dtype: str = "float64") -> np.ndarray:
    draw = np.random.default_rng(0).standard_normal
    return draw(shape) if dtype == "float64" else draw(shape) + 1j * draw(shape)


def distance(x: np.ndarray, value: TensorRing) -> float:
    return float(np.linalg.norm(x - value.dense()) / np.linalg.norm(x))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 6), (4, 3, 5, 4), (3, 4, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("search", [False, True])
def test_the_tolerance_is_kept_and_the_error_true(search: bool, shape: tuple[int, ...], dtype: str) -> None:
    x = noise(*shape, dtype=dtype)
    for tol in (0.7, 0.4, 0.1, 1e-6):
        fit = TRSVD(tol=tol, search=search)(x)
        assert fit.error <= tol and fit.error == pytest.approx(distance(x, fit.value), abs=1e-12)
    for rank in (1, 2, 3, (2, 3, 1, 3, 2)[: len(shape)]):
        fit = TRSVD(search=search)(x, rank)
        most = TensorRing.skeleton(shape, rank).ranks
        assert all(r <= most[b] for b, r in fit.value.ranks.items())
        assert fit.error == pytest.approx(distance(x, fit.value), abs=1e-12)


def test_every_law_holds_with_the_search() -> None:
    check_method(TRSVD(search=True))


def test_the_search_is_never_worse() -> None:
    x = noise(4, 6, 3, 5)
    for rank in (2, 3, 4):
        assert TRSVD(search=True)(x, rank).error <= TRSVD()(x, rank).error
    for tol in (0.5, 0.2):
        assert TRSVD(tol=tol, search=True)(x).value.numel <= TRSVD(tol=tol)(x).value.numel


def test_ranks_and_a_tolerance_both_bound_the_fit() -> None:
    x = noise(4, 6, 5)
    loose = TRSVD(tol=0.6)(x).value.ranks
    both = TRSVD(tol=0.6)(x, 2).value.ranks
    assert max(loose.values()) > 2 and max(both.values()) <= 2


def test_a_rank_is_split_evenly_among_its_divisors() -> None:
    assert splits(12, 99, 99)[0] == (3, 4) and splits(16, 99, 99)[0] == (4, 4)
    assert splits(7, 99, 99) == [(1, 7)]  # a prime: the ring is a train
    assert splits(7, 3, 3) == [(3, 3)] and splits(4, 2, 2) == [(2, 2)]
    assert splits(6, 9, 9, every=True) == [(1, 6), (2, 3), (3, 2), (4, 2), (5, 2), (6, 1)]


def test_the_bond_that_is_split_carries_the_first_unfolding() -> None:
    x = noise(9, 5, 6)
    fit = TRSVD()(x, 3)
    s = np.linalg.svd(x.reshape(9, -1), compute_uv=False)
    assert fit.value.ranks == {"R0": 3, "R1": 3, "R2": 3}
    assert fit.error > np.linalg.norm(s[9:]) / np.linalg.norm(s)


def test_a_train_is_found_as_a_ring_no_larger() -> None:
    train = TensorTrain.random((4, 5, 3, 6), (3, 4, 3), like=np.zeros(()), generator=0)
    fit = TRSVD(tol=1e-9)(train.dense())
    assert fit.error < 1e-12 and fit.value.numel <= train.numel
    assert fit.value.ranks == {"R0": 1, **TTSVD(tol=1e-9)(train.dense()).value.ranks}


def test_a_ring_is_not_found_at_its_ranks_but_within_a_tolerance() -> None:
    # Why `exact` is False: no SVD finds the mixture of singular vectors that makes all bonds small.
    ring = TensorRing.random((5, 4, 6, 5), 2, like=np.zeros(()), generator=1)
    assert not TRSVD.exact and TRSVD()(ring.dense(), 2).error > 1e-3
    fit = TRSVD(tol=1e-10)(ring.dense())
    assert fit.error < 1e-10 and max(fit.value.ranks.values()) > 2


def test_gradients_flow_through_a_padded_split() -> None:
    x = torch.randn(3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert TRSVD()(x, 2).value.ranks == {"R0": 2, "R1": 2, "R2": 2}  # 2 · 2 indices for 3 vectors
    assert torch.autograd.gradcheck(
        lambda t: TRSVD().fit(t, 2).value.dense(), x.requires_grad_(), fast_mode=True
    )


def test_a_tolerance_out_of_range_is_refused() -> None:
    with pytest.raises(OptionError):
        TRSVD(tol=-1.0)
