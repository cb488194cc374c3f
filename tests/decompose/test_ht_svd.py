"""Hierarchical SVD: its bound, its tolerance, its trees, and known ranks."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import OptionError, ShapeError
from tenfold.decompose import HTSVD, STHOSVD, TTSVD
from tenfold.formats import HierarchicalTucker, rounded
from tenfold.formats.dimension_tree import linear
from tenfold.testing.methods import discarded

TREES = [
    None,
    ((0, 2), (1, (4, 3))),
    linear(5),
    (0, 1, 2, 3, 4),
    ((0, 1, 2), (3, 4)),
    (((0, 1), 2), 3, 4),
    (2, ((0, 4), (3, 1))),
]


def noise(*shape: int, dtype: str = "float64") -> np.ndarray:
    draw = np.random.default_rng(0).standard_normal
    return draw(shape) if dtype == "float64" else draw(shape) + 1j * draw(shape)


def distance(x: np.ndarray, value: HierarchicalTucker) -> float:
    return float(np.linalg.norm(x - value.dense()) / np.linalg.norm(x))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("tree", TREES, ids=str)
def test_every_tree_keeps_tolerance_and_bound(tree: Any, dtype: str) -> None:
    x = noise(3, 4, 2, 5, 3, dtype=dtype)
    for tol in (0.7, 0.4, 0.1):
        fit = HTSVD(tol=tol, tree=tree)(x)
        assert fit.error <= tol and fit.error == pytest.approx(distance(x, fit.value), abs=1e-12)
        assert fit.value.network.clipped() == fit.value.network
    fit = HTSVD(tree=tree)(x, 2)
    tails = list(discarded(x, fit.value.network))
    square = fit.error**2 * np.linalg.norm(x) ** 2
    assert max(tails) <= square * (1 + 1e-9) and square <= sum(tails)


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_a_tensor_of_the_format_is_recovered_with_its_ranks(tree: Any) -> None:
    static = {} if tree is None else {"tree": tree}
    value = HierarchicalTucker.random((3, 4, 3, 5, 3), 2, like=np.zeros(()), generator=0, **static)
    fit = HTSVD(tol=1e-9, tree=tree)(value.dense())
    assert fit.value.ranks == value.ranks and fit.error < 1e-12
    assert fit.value.tree == value.tree


def test_the_error_is_within_the_root_of_2d_minus_3_of_the_best() -> None:
    x = noise(4, 4, 4, 4)
    fit = HTSVD()(x, 2)
    best = max(discarded(x, fit.value.network)) ** 0.5 / np.linalg.norm(x)
    assert best <= fit.error <= 5**0.5 * best


def test_all_factors_but_the_root_are_orthonormal() -> None:
    value = HTSVD()(noise(4, 5, 3, 4, 3), 3).value
    for factor in (*value.leaves, *value.transfers):
        matrix = factor.reshape(-1, factor.shape[-1])
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-12)


def test_modes_may_stay_whole() -> None:
    x = noise(4, 5, 3, 4)
    fit = HTSVD()(x, {"R0_1": 3, "R2_3": 3, "R0": 2, "R3": 2})
    assert fit.value.leaves[1] is None and fit.value.leaves[2] is None
    assert fit.error == pytest.approx(distance(x, fit.value), abs=1e-12)
    assert HTSVD()(x, {"R0_1": 20, "R2_3": 12}).error < 1e-12


def test_the_flat_tree_is_sequential_hosvd() -> None:
    x = noise(4, 5, 6)
    ours, theirs = HTSVD(tree=(0, 1, 2))(x, 2), STHOSVD()(x, 2)
    assert ours.error == pytest.approx(theirs.error)
    np.testing.assert_allclose(ours.value.dense(), theirs.value.dense(), atol=1e-10)


def test_the_linear_tree_has_the_ranks_of_a_train() -> None:
    x = TTSVD()(noise(4, 4, 4, 4, 4), 3).value.dense()
    ranks = HTSVD(tol=1e-9, tree=linear(5))(x).value.ranks
    assert [ranks[b] for b in ("R0", "R0_1", "R0_1_2", "R0_1_2_3")] == [3, 3, 3, 3]


@pytest.mark.parametrize("n, order", [(10, 3), (8, 4), (5, 5)])
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_ranks_of_hilbert_tensors_are_bounded_by_those_of_their_unfoldings(
    n: int, order: int, tol: float
) -> None:
    x = 1 / (1 + np.sum(np.meshgrid(*[np.arange(n)] * order, indexing="ij"), axis=0))
    fit = HTSVD(tol=tol)(x)
    assert fit.error <= tol and distance(x, fit.value) <= tol * (1 + 1e-6)
    share = tol * np.linalg.norm(x) / (2 * order - 3) ** 0.5
    for b, rank in fit.value.ranks.items():
        rows = n ** len(b.split("_"))
        s = np.linalg.svd(x.reshape(rows, -1), compute_uv=False)  # symmetric: only the number of modes counts
        tails = np.sqrt(np.cumsum(s[::-1] ** 2))[::-1]
        assert rank <= max(1, int(np.sum(tails > share)))
    assert rounded(fit.value, tol=1e-13).value.ranks == fit.value.ranks


def test_functions_of_a_sum_have_their_known_ranks() -> None:
    s = np.sum(np.meshgrid(*[np.linspace(0, 1, 6)] * 5, indexing="ij"), axis=0)
    for x, rank in ((np.exp(s), 1), (s, 2), (np.sin(s), 2), (s**2, 3), (s**3, 4), (s * np.sin(s), 4)):
        assert set(HTSVD(tol=1e-10)(x).value.ranks.values()) == {rank}


def test_orders_one_and_two() -> None:
    assert HTSVD()(np.arange(4.0), 1).value.dense().tolist() == [0, 1, 2, 3]
    x = noise(5, 4)
    s = np.linalg.svd(x, compute_uv=False)
    fit = HTSVD()(x, 2)
    assert fit.error == pytest.approx(np.linalg.norm(s[2:]) / np.linalg.norm(s))


def test_half_the_tolerance_is_not_lost_at_the_root() -> None:
    # The two nodes below the root share one unfolding, which is cut once.
    x = np.diag([1.0, 0.1, 0.1])
    assert HTSVD(tol=0.15)(x).value.ranks == {"R0": 1, "R1": 1}


def test_trees_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OptionError, match="names mode 1 twice"):
        HTSVD(tree=((0, 1), (1, 2)))
    with pytest.raises(ShapeError, match="has modes 0, 1, 2, but the tensor 0, 1"):
        HTSVD(tree=((0, 1), 2))(np.ones((3, 4)), 1)
    with pytest.raises(OptionError):
        HTSVD(tol=1.0)


def test_gradients_flow_through_another_tree() -> None:
    x = torch.randn(3, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    method = HTSVD(tree=((0, 2), (1, 3)))
    assert torch.autograd.gradcheck(
        lambda t: method.fit(t, 2).value.dense(), x.requires_grad_(), fast_mode=True
    )
