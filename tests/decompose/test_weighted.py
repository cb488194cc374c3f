"""Decompositions in the metric of the data: exact for low rank, and closer than plain ones for the others."""

import numpy as np
import pytest

from tenfold.core.errors import OptionError, ShapeError
from tenfold.decompose import CPALS, HOOI, TTSVD, TruncatedSVD, decompose_weighted, root_of
from tenfold.decompose.weighted import unwhitened, whitened


def moment(n: int, seed: int) -> np.ndarray:
    """A covariance with eigenvalues over three decades."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return (basis * np.logspace(0, -3, n)) @ basis.T


def weighted_norm(x: np.ndarray, moments: list[np.ndarray | None]) -> float:
    y = x
    for k, m in enumerate(moments):
        y = y if m is None else np.moveaxis(np.tensordot(y, m, axes=(k, 0)), -1, k)
    return float(np.sum(x * y)) ** 0.5


def test_low_rank_is_the_optimum_of_the_weighted_norm() -> None:
    rng = np.random.default_rng(0)
    w, g, c = rng.normal(size=(12, 15)), moment(12, 1), moment(15, 2)
    roots = [root_of(g, 1e-12), root_of(c, 1e-12)]
    fit = decompose_weighted(TruncatedSVD(), w, 4, roots)
    found = weighted_norm(w - fit.value.dense(), [g, c])
    tail = np.linalg.svd(np.linalg.cholesky(g).T @ w @ np.linalg.cholesky(c))[1][4:]
    assert found == pytest.approx(np.linalg.norm(tail), rel=1e-6)
    assert fit.error == pytest.approx(found / weighted_norm(w, [g, c]), rel=1e-6)


@pytest.mark.parametrize("method, ranks", [(HOOI(), (4, 4, None)), (CPALS(), 10), (TTSVD(), (4, 4))], ids=str)
def test_other_formats_come_closer_in_the_metric_than_without_it(method, ranks) -> None:
    rng = np.random.default_rng(0)
    x, moments = rng.normal(size=(12, 14, 9)), [moment(12, 1), moment(14, 2), None]
    roots = [None if m is None else root_of(m, 1e-9) for m in moments]
    inside = decompose_weighted(method, x, ranks, roots, generator=0).value
    outside = method.fit(x, ranks, generator=0).value
    assert type(inside) is type(outside) and inside.ranks == outside.ranks
    errors = [weighted_norm(x - value.dense(), moments) for value in (inside, outside)]
    assert errors[0] < 0.7 * errors[1]


def test_whitening_and_back_is_the_identity() -> None:
    x = np.random.default_rng(0).normal(size=(5, 6, 7))
    roots = [root_of(moment(5, 1)), None, root_of(moment(7, 2))]
    value = HOOI().fit(whitened(x, roots), (5, 6, 7)).value
    np.testing.assert_allclose(unwhitened(value, roots).dense(), x, atol=1e-9)


def test_a_singular_moment_is_damped() -> None:
    v = np.ones(4)
    pair = root_of(np.outer(v, v), damping=1e-3)
    np.testing.assert_allclose(pair.root @ pair.inverse, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(pair.root.T @ pair.root, np.outer(v, v) + 1e-3 * np.eye(4), atol=1e-10)
    np.testing.assert_allclose(
        root_of(np.zeros((3, 3))).root.T @ root_of(np.zeros((3, 3))).root, 1.0001 * np.eye(3)
    )


def test_bad_moments_are_refused() -> None:
    with pytest.raises(ShapeError, match="square"):
        root_of(np.ones((2, 3)))
    with pytest.raises(OptionError, match="damping"):
        root_of(np.eye(3), damping=-1e-9)


def test_tensors_and_moments_of_dask_are_weighted_in_memory() -> None:
    da = pytest.importorskip("dask.array")
    x, moment = np.arange(20.0).reshape(4, 5) ** 1.5, np.diag(np.arange(1.0, 6.0))
    expected = decompose_weighted(TruncatedSVD(), x, 1, [None, root_of(moment)])
    root = root_of(da.from_array(moment, chunks=2))
    found = decompose_weighted(TruncatedSVD(), da.from_array(x, chunks=2), 1, [None, root])
    assert isinstance(found.value.left, da.Array) and found.error == pytest.approx(expected.error)
    np.testing.assert_allclose(found.value.dense(), expected.value.dense(), atol=1e-10)
