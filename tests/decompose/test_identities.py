"""Identities of the literature: output PCA is the weighted optimum, and what CP's sensitivity means."""

import math

import numpy as np
import pytest

from tenfold.decompose import (
    CPALS,
    CPEPC,
    HOOI,
    TTSVD,
    Method,
    RandomizedSVD,
    Root,
    TruncatedSVD,
    decompose_weighted,
    root_of,
    sensitivity,
)
from tenfold.decompose.cp.epc import allowed, corrected, renewed
from tenfold.decompose.cp.sensitivity import stillest, weights
from tenfold.decompose.weighted import shortened, whitened
from tenfold.formats import CP

Matrix = np.ndarray


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def data(rows: int, positions: int, seed: int) -> Matrix:
    """Columns whose moment is X Xᵀ, over three decades of scale."""
    mixed = rng(seed).normal(size=(rows, rows)) @ np.diag(np.logspace(0, -1.5, rows))
    return mixed @ rng(seed + 1).normal(size=(rows, positions)) / positions**0.5


def sides(name: str, shape: tuple[int, int], positions: int) -> tuple[Matrix | None, Matrix | None]:
    """Data of the rows and of the columns, None where that side has no moment."""
    rows = data(shape[0], positions, 1) if name in ("rows", "both") else None
    columns = data(shape[1], positions, 2) if name in ("columns", "both") else None
    return rows, columns


def root(x: Matrix | None, damping: float = 0.0) -> Root | None:
    return None if x is None else root_of(x @ x.T, damping)


def seen(w: Matrix, rows: Matrix | None, columns: Matrix | None) -> Matrix:
    """What the data show of a matrix: Rᵀ W C, whose squared norm is the weighted one."""
    w = w if rows is None else rows.T @ w
    return w if columns is None else w @ columns


def optimum(w: Matrix, rank: int, rows: Matrix | None, columns: Matrix | None) -> float:
    """The least weighted error of any matrix of this rank (Eckart & Young)."""
    return float(np.linalg.norm(np.linalg.svd(seen(w, rows, columns), compute_uv=False)[rank:]))


SHAPES = [(12, 30), (30, 12), (20, 20)]


# Output PCA ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["rows", "columns", "both"])
def test_output_pca_is_cholesky_whitening_is_the_bound_of_eckart_and_young(
    name: str, shape: tuple[int, int]
) -> None:
    w, rank = rng().normal(size=shape), 5
    rows, columns = sides(name, shape, 100)
    fit = decompose_weighted(TruncatedSVD(), w, rank, [root(rows), root(columns)])
    a = np.eye(shape[0]) if rows is None else np.linalg.cholesky(rows @ rows.T)
    s = np.eye(shape[1]) if columns is None else np.linalg.cholesky(columns @ columns.T)
    u, sigma, vh = np.linalg.svd(a.T @ w @ s)
    cholesky = np.linalg.solve(a.T, u[:, :rank] * sigma[:rank] @ vh[:rank]) @ np.linalg.inv(s)
    np.testing.assert_allclose(fit.value.dense(), cholesky, atol=1e-6 * np.abs(cholesky).max())
    best = optimum(w, rank, rows, columns)
    error = np.linalg.norm(seen(w - fit.value.dense(), rows, columns))
    assert error == pytest.approx(best, rel=1e-9)
    assert fit.error == pytest.approx(best / np.linalg.norm(seen(w, rows, columns)), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["rows", "columns", "both"])
@pytest.mark.parametrize("method", [TruncatedSVD(), RandomizedSVD(check=0.0, oversampling=20)], ids=str)
def test_the_optimum_is_attained_where_the_moments_are_singular(
    name: str, shape: tuple[int, int], method: Method
) -> None:
    """With fewer positions than rows Cholesky's factorisation fails."""
    w, rank = rng().normal(size=shape), 5
    rows, columns = sides(name, shape, 9)
    for x in (rows, columns):
        if x is not None:
            with pytest.raises(np.linalg.LinAlgError):
                np.linalg.cholesky(x @ x.T - 1e-15 * np.trace(x @ x.T) * np.eye(len(x)))
    fit = decompose_weighted(method, w, rank, [root(rows), root(columns)], generator=0)
    error = np.linalg.norm(seen(w - fit.value.dense(), rows, columns))
    assert error == pytest.approx(optimum(w, rank, rows, columns), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inputs_that_were_never_seen_keep_their_projection_on_the_principal_outputs(
    shape: tuple[int, int],
) -> None:
    w, x = rng().normal(size=shape), data(shape[1], 9, 2)
    value = decompose_weighted(TruncatedSVD(), w, 5, [None, root(x)]).value
    outputs = np.linalg.eigh(w @ x @ x.T @ w.T)[1][:, -5:]
    np.testing.assert_allclose(value.dense(), outputs @ outputs.T @ w, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["rows", "columns", "both"])
def test_the_shortened_matrix_has_the_singular_values_of_the_whitened_one(
    name: str, shape: tuple[int, int]
) -> None:
    w, roots = rng().normal(size=shape), [root(x, 1e-4) for x in sides(name, shape, 9)]
    short, whole = shortened(w, roots), whitened(w, roots)
    assert min(short.shape) == min(shape)
    sigma = np.linalg.svd(whole, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(short, compute_uv=False), sigma, atol=1e-6 * sigma[0])


def test_output_pca_takes_no_root_of_the_moment() -> None:
    columns = root(data(30, 9, 2))
    decompose_weighted(TruncatedSVD(), rng().normal(size=(12, 30)), 5, [None, columns])
    assert not {"root", "inverse", "_eigen"} & vars(columns).keys()


@pytest.mark.parametrize("ranks", [0.4, 5, (5,), {"R": 5}, 99], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ranks_are_those_of_the_matrix_itself(shape: tuple[int, int], ranks: object) -> None:
    w, x = rng().normal(size=shape), data(shape[1], 50, 2)
    fit = decompose_weighted(TruncatedSVD(), w, ranks, [None, root(x)])
    assert fit.value.ranks == TruncatedSVD()(w, ranks).value.ranks
    if ranks == 99:
        np.testing.assert_allclose(fit.value.dense(), w, atol=1e-10)


def test_a_tolerance_holds_in_the_metric() -> None:
    w, x = rng().normal(size=(20, 30)), data(30, 50, 2)
    fit = decompose_weighted(TruncatedSVD(tol=0.2), w, None, [None, root(x)])
    rank = fit.value.ranks["R"]
    whole = np.linalg.norm(w @ x)
    assert optimum(w, rank, None, x) <= 0.2 * whole < optimum(w, rank - 1, None, x)


@pytest.mark.parametrize("name", ["rows", "columns", "both"])
def test_components_in_the_metric_have_their_norm_spread_evenly(name: str) -> None:
    rows, columns = sides(name, (12, 30), 50)
    value = decompose_weighted(TruncatedSVD(), rng().normal(size=(12, 30)), 5, [root(rows), root(columns)])
    left, right = value.value.factors
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1))


@pytest.mark.parametrize(
    "method, ranks", [(HOOI(), (4, 4, 3)), (CPALS(), 10), (TTSVD(), (4, 4)), (CPEPC(), 10)], ids=str
)
def test_every_format_reports_its_true_error_where_a_moment_is_singular(
    method: Method, ranks: object
) -> None:
    """The factors of a fit lie where the data are, and there the pseudo-inverse is an inverse."""
    x, inputs = rng().normal(size=(12, 14, 9)), [data(12, 8, 1), data(14, 40, 2), None]
    fit = decompose_weighted(method, x, ranks, [root(d) for d in inputs], generator=0)

    def shown(tensor: Matrix) -> float:
        return float(np.linalg.norm(np.einsum("abc,ax,by->xyc", tensor, inputs[0], inputs[1])))

    assert shown(x - fit.value.dense()) / shown(x) == pytest.approx(fit.error, rel=1e-6)


def test_without_slices_the_relative_operator_error_is_a_ratio_of_singular_values() -> None:
    """ALDS's measure (Liebenwein et al. 2021) with k = 1, where its bound is the error itself."""
    w = rng().normal(size=(20, 30)) * 0.8 ** np.arange(30)
    sigma = np.linalg.svd(w, compute_uv=False)
    for rank in (1, 5, 19):
        error = np.linalg.norm(w - TruncatedSVD()(w, rank).value.dense(), 2) / np.linalg.norm(w, 2)
        assert error == pytest.approx(sigma[rank] / sigma[0], rel=1e-10)


# Sensitivity of CP ---------------------------------------------------------------------------------------


def some_cp(shape: tuple[int, ...], rank: int, seed: int = 0, dtype: str = "float64") -> CP:
    return CP.random(shape, rank, like=np.zeros((), dtype=dtype), generator=seed)


@pytest.mark.parametrize("shape", [(7,), (6, 5), (5, 4, 6), (3, 4, 2, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_sensitivity_is_the_squared_change_by_small_noise(shape: tuple[int, ...], dtype: str) -> None:
    cp, draw, sigma = some_cp(shape, 3, dtype=dtype), rng(1), 1e-5

    def noise(f: Matrix) -> Matrix:
        if dtype == "float64":
            return draw.normal(size=f.shape)
        return (draw.normal(size=f.shape) + 1j * draw.normal(size=f.shape)) / 2**0.5

    changes = []
    for _ in range(4000):
        moved = CP(tuple(f + sigma * noise(f) for f in cp.matrices))
        changes.append(np.linalg.norm(moved.dense() - cp.dense()) ** 2 / sigma**2)
    deviation = np.std(changes) / len(changes) ** 0.5
    assert abs(np.mean(changes) - sensitivity(cp)) < 4 * deviation
    assert deviation < 0.03 * sensitivity(cp)


def test_sensitivity_of_three_modes_is_the_formula_of_its_paper() -> None:
    cp = some_cp((5, 4, 6), 3)
    a, b, c = (np.sum(f**2, axis=0) for f in cp.matrices)
    assert sensitivity(cp) == pytest.approx(np.sum(6 * a * b + 5 * b * c + 4 * a * c))


@pytest.mark.parametrize("shape", [(6, 5), (5, 4, 6), (3, 4, 2, 5)], ids=str)
def test_no_other_scaling_of_the_components_is_less_sensitive(shape: tuple[int, ...]) -> None:
    cp = some_cp(shape, 3)
    least = stillest(cp)
    np.testing.assert_allclose(least.dense(), cp.dense(), atol=1e-12)
    for seed in range(20):
        logs = rng(seed).normal(size=(len(shape), 3)) * 0.1
        scales = np.exp(logs - logs.mean(axis=0))
        other = CP(tuple(f * s for f, s in zip(least.matrices, scales, strict=True)))
        np.testing.assert_allclose(other.dense(), cp.dense(), atol=1e-12)
        assert sensitivity(other) > sensitivity(least)


def test_weights_are_the_derivatives_of_the_sensitivity() -> None:
    cp = some_cp((3, 4, 2, 5), 3)
    for k, f in enumerate(cp.matrices):
        grown = f * np.array([2.0, 1.0, 1.0])
        other = CP((*cp.matrices[:k], grown, *cp.matrices[k + 1 :]))
        gain = np.sum(grown**2) - np.sum(f**2)
        assert sensitivity(other) - sensitivity(cp) == pytest.approx(weights(cp, k)[0] * gain)


# Error-preserving correction -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_a_step_is_the_least_sensitive_factor_within_the_limit(mode: int) -> None:
    """Its error is the limit, and the gradients of error and sensitivity are opposite there."""
    x, cp = rng().normal(size=(5, 4, 6, 3)), some_cp((5, 4, 6, 3), 4, seed=2)
    rest = [f for k, f in enumerate(cp.matrices) if k != mode]
    z = np.stack([math.prod(np.ix_(*(f[:, r] for f in rest))).ravel() for r in range(4)], axis=1)
    unfolded = np.moveaxis(x, mode, 0).reshape(x.shape[mode], -1)
    best = unfolded - unfolded @ z @ np.linalg.inv(z.T @ z) @ z.T
    limit = 1.001 * float(np.linalg.norm(best))
    factor, error = renewed(x, cp, mode, unfolded @ z, limit, float(np.linalg.norm(x)))
    residual = unfolded - factor @ z.T
    assert error == pytest.approx(limit, rel=1e-9)
    assert np.linalg.norm(residual) == pytest.approx(limit, rel=1e-9)
    ratio = (residual @ z) / (factor * weights(cp, mode))
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)
    assert ratio[0, 0] > 0


def kernel() -> Matrix:
    """Of a convolution's size and spectrum, with more components than any of its modes has."""
    u, _, vh = np.linalg.svd(rng().normal(size=(24, 24 * 9)), full_matrices=False)
    return (u * np.arange(1, 25) ** -0.7 @ vh).reshape(24, 24, 9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_at_the_same_error_the_correction_makes_cp_far_less_sensitive(dtype: str) -> None:
    x = kernel().astype(dtype)
    found = CPALS(ridge=0.0).fit(x, 50, generator=0)
    fit = corrected(x, found.value, found.error * float(np.linalg.norm(x)), max_steps=60)
    assert fit.error <= found.error * (1 + (1e-7 if dtype == "float64" else 1e-3))
    assert sensitivity(fit.value) < 0.5 * sensitivity(found.value)
    assert fit.value.dtype == x.dtype


@pytest.mark.parametrize("slack", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("shape, rank", [((9, 8), 4), ((8, 8, 9), 20), ((4, 5, 3, 4), 12)], ids=str)
def test_the_error_grows_by_the_slack_at_most(shape: tuple[int, ...], rank: int, slack: float) -> None:
    x = rng().normal(size=shape)
    als = CPALS().fit(x, rank, generator=0)
    fit = CPEPC(slack=slack, max_steps=20).fit(x, rank, generator=0)
    assert fit.error <= allowed(als.error, slack) * (1 + 1e-7)
    assert sensitivity(fit.value) <= sensitivity(als.value)
    assert len(fit.trace) == fit.steps


def test_more_slack_and_more_steps_are_less_sensitive() -> None:
    x = kernel()
    found = [
        sensitivity(CPEPC(slack=s, max_steps=20).fit(x, 50, generator=0).value) for s in (0.0, 0.02, 0.1)
    ]
    assert found == sorted(found, reverse=True)
    steps = [sensitivity(CPEPC(max_steps=n).fit(x, 50, generator=0).value) for n in (1, 10, 40)]
    assert steps == sorted(steps, reverse=True)


def test_dead_components_stay_dead() -> None:
    x, cp = rng().normal(size=(5, 4, 6)), some_cp((5, 4, 6), 3)
    dead = CP(tuple(f * np.array([1.0, 0.0, 1.0]) for f in cp.matrices))
    start = CPALS(max_steps=5).fit(x, 2, generator=0).value
    padded = CP(
        tuple(np.insert(f, 1, d[:, 1], axis=1) for f, d in zip(start.matrices, dead.matrices, strict=True))
    )
    fit = corrected(x, padded, 1.05 * float(np.linalg.norm(x - start.dense())), max_steps=10)
    assert all(np.all(f[:, 1] == 0) for f in fit.value.matrices)
    assert np.isfinite(fit.error) and sensitivity(fit.value) < sensitivity(stillest(padded))
