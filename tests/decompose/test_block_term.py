"""Sums of Tucker terms: recovery, starts by generalised eigenvectors, noise."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import OptionError
from tenfold.decompose import BlockTermALS, BlockTermGN
from tenfold.decompose.networks.block_term_gevd import block_term_gevd, grouped
from tenfold.formats import BlockTerm

SHAPE = (8, 9, 10)
RANKS = [(2, 2, 2, 2), (3, 2, 2, 2), (3, 2, 2, 1), (2, 3, 3, 1), (3, 3, 3, 1)]
METHODS = [BlockTermALS(tol=1e-4, max_steps=1500), BlockTermGN(tol=1e-8)]


def tensor(ranks: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> BlockTerm:
    return BlockTerm.random(SHAPE, ranks, like=np.zeros((), dtype=dtype), generator=seed)


@pytest.mark.parametrize("ranks", RANKS, ids=str)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_sums_of_terms_are_recovered(method: Any, ranks: tuple[int, ...]) -> None:
    for dtype in ("float64", "complex128"):
        x = tensor(ranks, dtype, seed=3).dense()
        fit = method.fit(x, ranks, generator=0)
        assert fit.error < 1e-9 and fit.value.ranks["T"] == ranks[0]


@pytest.mark.parametrize("ranks", [(2, 2, 2, 2), (3, 2, 2, 1), (2, 3, 3, 1)], ids=str)
def test_the_terms_themselves_are_found_not_only_their_sum(ranks: tuple[int, ...]) -> None:
    x = tensor(ranks, seed=4)
    found = BlockTermGN().fit(x.dense(), ranks, generator=0).value
    true = [t.dense() for t in x.terms()]
    for term in found.terms():
        dense = term.dense()
        nearest = min(true, key=lambda t: float(np.linalg.norm(t - dense)))
        assert np.linalg.norm(nearest - dense) < 1e-6 * np.linalg.norm(nearest)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("ranks", [(2, 2, 2, 2), (3, 2, 2, 2), (4, 2, 2, 1), (2, 3, 3, 1)], ids=str)
def test_generalised_eigenvectors_find_the_terms_without_iteration(
    ranks: tuple[int, ...], dtype: str
) -> None:
    x = tensor(ranks, dtype, seed=5)
    found = block_term_gevd(x.dense(), x.network, 0)
    assert found is not None
    assert np.linalg.norm((found - x).dense()) < 1e-7 * np.linalg.norm(x.dense())


def test_the_two_long_modes_may_be_any_and_orders_above_three_too() -> None:
    like = np.zeros(())
    for shape, ranks in (
        ((4, 8, 9), (3, 1, 2, 2)),
        ((9, 3, 8), (3, 2, 1, 2)),
        ((6, 3, 6, 4), (3, 2, 1, 2, 1)),
    ):
        x = BlockTerm.random(shape, ranks, like=like, generator=6)
        found = block_term_gevd(x.dense(), x.network, 0)
        assert found is not None and found.shape == shape
        assert np.linalg.norm((found - x).dense()) < 1e-7 * np.linalg.norm(x.dense())


@pytest.mark.parametrize("shape, ranks", [((4, 5, 6), (3, 2, 2, 2)), ((8, 9), (2, 2, 2))], ids=str)
def test_terms_that_do_not_fit_side_by_side_have_no_pencil(
    shape: tuple[int, ...], ranks: tuple[int, ...]
) -> None:
    x = BlockTerm.random(shape, ranks, like=np.zeros(()), generator=0)
    assert block_term_gevd(x.dense(), x.network, 0) is None


def test_terms_of_lower_rank_than_asked_for_have_no_pencil() -> None:
    x = tensor((1, 2, 2, 2))
    assert block_term_gevd(x.dense(), BlockTerm.skeleton(SHAPE, (2, 2, 2, 2)), 0) is None


def test_groups_are_told_by_distance() -> None:
    apart = [[0.0, 5, 5, 1], [5, 0.0, 2, 5], [5, 2, 0.0, 5], [1, 5, 5, 0.0]]
    assert grouped(apart, 2) == [[0, 3], [1, 2]]


@pytest.mark.parametrize("method", [BlockTermALS(), BlockTermGN()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("ranks", [(2, 2, 2, 2), (3, 2, 2, 1)], ids=str)
def test_noise_of_one_per_cent_moves_the_tensor_by_less(method: Any, ranks: tuple[int, ...]) -> None:
    clean = tensor(ranks, seed=7).dense()
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    x = clean + 0.01 * noise * np.linalg.norm(clean) / np.linalg.norm(noise)
    fit = method.fit(x, ranks, generator=0)
    assert fit.converged and 0.008 < fit.error < 0.01001
    assert np.linalg.norm(fit.value.dense() - clean) < 0.006 * np.linalg.norm(clean)


def test_matrices_times_vectors_are_recovered_with_their_vectors() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(s) for s in ((3, 8, 2), (3, 9, 2), (3, 5)))
    x = BlockTerm.ll1(a, b, c).dense()
    found = BlockTermGN().fit(x, (3, 2, 2, 1), generator=0).value
    vectors = found.matrices[2][:, :, 0]
    unit, true = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (vectors, c))
    np.testing.assert_allclose(np.max(np.abs(unit @ true.T), axis=1), 1.0, atol=1e-9)


def test_gauss_newton_takes_fewer_steps_than_alternating_least_squares_from_random_starts() -> None:
    x = tensor((3, 3, 3, 1), seed=8).dense()
    steps = [m.fit(x, (3, 3, 3, 1), generator=0).steps for m in METHODS]
    assert 3 * steps[1] < steps[0]


def test_whole_modes_stay_in_the_core() -> None:
    x = BlockTerm.random((6, 7, 4), {"T": 2, "R0": 2, "R1": 2}, like=np.zeros(()), generator=0)
    fit = BlockTermGN().fit(x.dense(), {"T": 2, "R0": 2, "R1": 2}, generator=0)
    assert fit.error < 1e-9 and fit.value.matrices[2] is None


def test_torch_tensors_in_single_precision_keep_library_and_dtype() -> None:
    x = torch.tensor(tensor((2, 2, 2, 2)).dense(), dtype=torch.float32)
    fit = BlockTermGN().fit(x, (2, 2, 2, 2), generator=0)
    assert fit.value.dtype == torch.float32 and fit.error < 1e-5


@pytest.mark.parametrize("method", [BlockTermALS, BlockTermGN])
def test_unknown_starts_are_refused(method: Any) -> None:
    with pytest.raises(OptionError, match="Choose one of gevd, random"):
        method(start="svd")
