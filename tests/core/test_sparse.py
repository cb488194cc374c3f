"""Lists of entries: what is refused, what they stand for, and the sums that all products with them use."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core import segments
from tenfold.core.errors import ShapeError, WeightError
from tenfold.core.incomplete import Incomplete
from tenfold.core.segments import Segments
from tenfold.core.sparse import Sparse

LIBRARIES = [np.asarray, torch.as_tensor]
INDICES = np.array([[0, 1], [2, 0], [1, 1]])
VALUES = np.array([1.0, 2.0, 3.0])


def some(shape: tuple[int, ...], share: float, seed: int = 0) -> np.ndarray:
    """Normal entries, of which a share is not zero."""
    random = np.random.default_rng(seed)
    return random.standard_normal(shape) * (random.random(shape) < share)


@pytest.mark.parametrize("array", LIBRARIES)
@pytest.mark.parametrize("shape", [(6,), (3, 4), (3, 4, 5)], ids=str)
def test_a_dense_tensor_comes_back_from_its_entries(array: Any, shape: tuple[int, ...]) -> None:
    dense = array(some(shape, 0.4))
    sparse = Sparse.from_dense(dense)
    assert sparse.shape == shape and sparse.nnz == int((dense != 0).sum())
    np.testing.assert_array_equal(np.asarray(sparse.dense()), np.asarray(dense))
    np.testing.assert_allclose(float(sparse.norm()), np.linalg.norm(np.asarray(dense)), rtol=1e-6)


def test_lists_are_lists_in_jax_too() -> None:
    jnp = pytest.importorskip("jax.numpy")
    dense = jnp.asarray(some((3, 4), 0.4))
    np.testing.assert_array_equal(Sparse.from_dense(dense).dense(), dense)
    np.testing.assert_array_equal(Incomplete.from_mask(dense, dense > 0).dense(0.0), jnp.maximum(dense, 0))


def test_entries_that_are_listed_twice_add_up() -> None:
    twice = Sparse(np.concatenate([INDICES, INDICES[:2]]), np.concatenate([VALUES, VALUES[:2]]), (3, 2))
    np.testing.assert_array_equal(twice.dense(), [[0, 2], [0, 3], [4, 0]])
    assert twice.coalesced.nnz == 3 and float(twice.norm()) == np.linalg.norm([2, 3, 4])


def test_a_list_without_entries_is_the_zero_tensor() -> None:
    empty = Sparse(np.zeros((0, 3), dtype=int), np.zeros(0), (2, 3, 4))
    assert not empty.dense().any() and empty.norm() == 0 and empty.density == 0


@pytest.mark.parametrize("array", LIBRARIES)
def test_a_mask_says_what_is_known(array: Any) -> None:
    dense, mask = some((4, 5), 1.0), np.random.default_rng(1).random((4, 5)) < 0.6
    known = Incomplete.from_mask(array(dense), array(mask))
    np.testing.assert_array_equal(np.asarray(known.dense(7.0)), np.where(mask, np.asarray(array(dense)), 7.0))
    assert known.density == mask.mean()
    holes = Incomplete.from_nan(array(np.where(mask, dense, np.nan)))
    np.testing.assert_array_equal(np.asarray(holes.indices), np.asarray(known.indices))


def test_unknown_entries_can_be_filled_from_an_array() -> None:
    dense, other = some((3, 4), 1.0), some((3, 4), 1.0, seed=2)
    mask = dense > 0
    filled = Incomplete.from_mask(dense, mask).dense(other)
    np.testing.assert_array_equal(filled, np.where(mask, dense, other))


def test_sparse_arrays_of_torch_and_scipy_enter_and_leave() -> None:
    dense = some((4, 5), 0.5)
    ours = torch.as_tensor(dense).to_sparse().coalesce()
    sparse = Sparse.from_coordinates(ours.indices(), ours.values(), ours.shape)
    back = torch.sparse_coo_tensor(sparse.indices.T, sparse.values, sparse.shape, check_invariants=True)
    np.testing.assert_array_equal(back.to_dense(), dense)
    scipy_sparse = pytest.importorskip("scipy.sparse")
    coo = scipy_sparse.coo_array(dense)
    sparse = Sparse.from_coordinates(coo.coords, coo.data, coo.shape)
    back = scipy_sparse.coo_array((sparse.values, tuple(sparse.indices.T)), sparse.shape)
    np.testing.assert_array_equal(back.todense(), dense)


def test_values_change_without_sorting_anew() -> None:
    sparse = Sparse(INDICES, VALUES, (3, 2))
    plan = sparse.segments(0)
    doubled = sparse.map(lambda v: 2 * v)
    assert doubled.segments(0) is plan
    np.testing.assert_array_equal(doubled.dense(), 2 * sparse.dense())


def test_keys_tell_fibres_apart_where_their_number_overflows() -> None:
    indices = np.array([[0] * 5, [2**14 - 1] * 5, [1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0] * 5])
    keys = Sparse(indices, np.ones(5), (2**14,) * 5).keys(range(5))
    assert keys[0] == keys[4] and len(set(keys.tolist())) == 4


def test_gradients_reach_the_values() -> None:
    dense = torch.as_tensor(some((3, 4), 0.6)).requires_grad_()
    (gradient,) = torch.autograd.grad((Sparse.from_dense(dense).dense() ** 2).sum(), dense)
    torch.testing.assert_close(gradient, 2 * dense.detach())


@pytest.mark.parametrize(
    "indices, values, shape, words",
    [
        (INDICES[:, :1], VALUES, (3, 2), r"indices of shape \(3, 1\) and values of shape \(3,\)"),
        (INDICES, VALUES[:2], (3, 2), r"values of shape \(2,\)"),
        (INDICES, VALUES[:, None], (3, 2), r"values of shape \(3, 1\)"),
        (INDICES[0], VALUES[:1], (3, 2), r"indices of shape \(2,\)"),
        (INDICES[:, :0], VALUES, (), "no entries"),
        (INDICES.astype(float), VALUES, (3, 2), "of float64"),
        (INDICES, VALUES, (2, 2), "mode 0 has size 2, but indices from 0 to 2"),
        (-INDICES, VALUES, (3, 2), "mode 0 has size 3, but indices from -2 to 0"),
    ],
)
@pytest.mark.parametrize("kind", [Sparse, Incomplete])
def test_lists_that_do_not_fit_are_refused(
    kind: Any, indices: Any, values: Any, shape: Any, words: str
) -> None:
    with pytest.raises(ShapeError, match=words):
        kind(indices, values, shape)


def test_indices_and_values_are_of_one_library() -> None:
    with pytest.raises(WeightError, match="arrays of one library"):
        Sparse(torch.as_tensor(INDICES), VALUES, (3, 2))


def test_an_incomplete_tensor_lists_nothing_twice_and_something() -> None:
    with pytest.raises(WeightError, match="1 of the 4 entries of the incomplete tensor are listed again"):
        Incomplete(np.concatenate([INDICES, INDICES[:1]]), np.append(VALUES, 1.0), (3, 2))
    with pytest.raises(WeightError, match="no entry of the incomplete tensor is known"):
        Incomplete.from_mask(np.ones((2, 2)), np.zeros((2, 2), dtype=bool))


def test_masks_are_booleans_of_the_same_shape() -> None:
    for mask in (np.ones((2, 3)), np.ones((3, 2), dtype=bool)):
        with pytest.raises(ShapeError, match="expected a mask of booleans of shape"):
            Incomplete.from_mask(np.ones((2, 3)), mask)


def test_a_slice_that_is_unknown_is_named() -> None:
    mask = np.ones((3, 4, 2), dtype=bool)
    Incomplete.from_mask(np.ones(mask.shape), mask).check_known()
    mask[:, 2, :] = False
    with pytest.raises(WeightError, match="index 2 of mode 1 has no known entry"):
        Incomplete.from_mask(np.ones(mask.shape), mask).check_known()


# Sums of segments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", LIBRARIES)
@pytest.mark.parametrize("count, labels", [(1, 1), (7, 3), (100, 5), (1000, 2), (50, 200)])
def test_segments_are_summed(array: Any, count: int, labels: int) -> None:
    random = np.random.default_rng(count)
    label, rows = random.integers(0, labels, count), random.standard_normal((count, 3))
    expected = np.zeros((labels, 3))
    np.add.at(expected, label, rows)
    found = Segments.of(array(label), labels).sum(array(rows))
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)


def test_long_segments_are_cut_into_blocks_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "WIDEST", 8)
    monkeypatch.setattr(segments, "CHUNK", 16)
    rows = np.random.default_rng(0).standard_normal((1003, 2))
    label = np.arange(1003) % 2
    found = Segments.of(label, 3).sum(rows)
    np.testing.assert_allclose(found, [rows[::2].sum(0), rows[1::2].sum(0), [0, 0]], atol=1e-12)


def test_products_of_rows_are_summed_by_label() -> None:
    random = np.random.default_rng(0)
    label, a, b = random.integers(0, 4, 50), random.standard_normal((50, 2)), random.standard_normal((50, 3))
    found = Segments.of(label, 4).products(lambda at: (a[at], b[at]), 5)
    for k in range(4):
        np.testing.assert_allclose(found[k], a[label == k].T @ b[label == k], atol=1e-12)


def test_entries_of_a_dask_array_are_listed_in_numpy() -> None:
    da = pytest.importorskip("dask.array")
    dense = some((3, 4), 0.4)
    x = da.from_array(dense, chunks=2)
    np.testing.assert_array_equal(Sparse.from_dense(x).dense(), dense)
    np.testing.assert_array_equal(Incomplete.from_nan(x).dense(0.0), dense)
    np.testing.assert_array_equal(Incomplete.from_mask(x, x > 0).dense(0.0), np.maximum(dense, 0))


def test_a_mask_that_is_no_array_is_refused() -> None:
    with pytest.raises(WeightError, match="expected arrays of one library"):
        Incomplete.from_mask(np.ones(2), [True, False])
