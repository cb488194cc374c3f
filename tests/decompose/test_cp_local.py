"""The Gauss–Newton kernels of CP against an explicit Jacobian, and the derivative of a fit."""

import itertools
import math

import numpy as np
import pytest
import torch

from tenfold.algebra import unfold
from tenfold.decompose import CPD, CPGN, CPNesterov
from tenfold.decompose.cp.gradient import across, attached
from tenfold.decompose.cp.grams import balanced, component_norms
from tenfold.decompose.cp.local import CPLocal, CPProblem
from tenfold.decompose.cp.ridge import Ridged
from tenfold.decompose.cp.sweep import by_qr, safe, sweep
from tenfold.decompose.local_problem import Point, added, dot, size
from tenfold.formats import CP

SHAPES = [(4,), (5, 4), (4, 5, 3), (3, 4, 2, 3), (2, 3, 2, 2, 3)]
DTYPES = ["float64", "complex128"]


def normal(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if dtype == "complex128" else x


def some_point(shape: tuple[int, ...], rank: int, dtype: str = "float64", seed: int = 1) -> Point:
    return tuple(normal((n, rank), dtype, seed + k) for k, n in enumerate(shape))


def flat(point: Point) -> np.ndarray:
    return np.concatenate([x.ravel() for x in point])


def dense(point: Point) -> np.ndarray:
    return np.asarray(CP(point).dense())


def jacobian(point: Point) -> np.ndarray:
    """Column by column: the model is linear in each factor."""
    columns = []
    for n, factor in enumerate(point):
        for entry in range(factor.size):
            unit = np.zeros(factor.size, dtype=factor.dtype)
            unit[entry] = 1
            columns.append(dense((*point[:n], unit.reshape(factor.shape), *point[n + 1 :])).ravel())
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_gradient_and_gram_are_those_of_the_jacobian(
    shape: tuple[int, ...], dtype: str, close: bool
) -> None:
    x, point, direction = normal(shape, dtype), some_point(shape, 3, dtype), some_point(shape, 3, dtype, 9)
    problem = CPProblem(x)
    problem.close = close
    local, j, residual = CPLocal(problem, point), jacobian(point), (dense(point) - x).ravel()
    assert local.value == pytest.approx(np.linalg.norm(residual) ** 2 / 2, rel=1e-12)
    np.testing.assert_allclose(flat(local.gradient), j.conj().T @ residual, atol=1e-10)
    expected = j.conj().T @ (j @ flat(direction))
    np.testing.assert_allclose(flat(local.gram(direction)), expected, atol=1e-13 * np.abs(expected).max())
    np.testing.assert_allclose(local.explicit_gram, j.conj().T @ j, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_the_jacobian_lacks_a_rank_for_each_scaling(shape: tuple[int, ...], dtype: str) -> None:
    """(N - 1) R, where the decomposition is unique otherwise."""
    rank = 1 if len(shape) == 2 else 3
    gram = CPLocal(CPProblem(normal(shape, dtype)), some_point(shape, rank, dtype)).explicit_gram
    values = np.linalg.eigvalsh(gram)
    assert np.sum(values < 1e-12 * values[-1]) == (len(shape) - 1) * rank


@pytest.mark.parametrize("shift", [0.0, 0.7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_preconditioner_inverts_the_block_diagonal(dtype: str, shift: float) -> None:
    shape, rank = (5, 6, 4), 3
    local = CPLocal(CPProblem(normal(shape, dtype)), some_point(shape, rank, dtype))
    target = some_point(shape, rank, dtype, 9)
    ends = np.cumsum([0, *(n * rank for n in shape)])
    solved = local.precondition(target, shift)
    for k, (a, b) in enumerate(itertools.pairwise(ends)):
        block = local.explicit_gram[a:b, a:b] + shift * np.eye(b - a)
        np.testing.assert_allclose(block @ solved[k].ravel(), target[k].ravel(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_small_problems_are_solved_by_the_pseudo_inverse(dtype: str, shift: float) -> None:
    shape = (4, 3, 5)
    local = CPLocal(CPProblem(normal(shape, dtype)), some_point(shape, 2, dtype))
    step = local.solve(local.gradient, shift)
    assert step is not None
    residual = added(added(local.gram(step), step, shift), local.gradient, -1.0)
    assert size(residual) < 1e-9 * size(local.gradient)
    assert CPLocal(CPProblem(normal(shape, dtype), 23), some_point(shape, 2, dtype)).solve(step, 0.0) is None


def test_settling_balances_columns_and_keeps_value_and_model() -> None:
    shape = (4, 5, 3)
    problem = CPProblem(normal(shape))
    start = problem.at(tuple(f * s for f, s in zip(some_point(shape, 3), (1e3, 1.0, 1e-2), strict=True)))
    same = start.settled()
    assert same.value == start.value
    again = problem.at(same.point)
    np.testing.assert_allclose(flat(same.gradient), flat(again.gradient), rtol=1e-8, atol=1e-8)
    norms = [np.linalg.norm(f, axis=0) for f in same.point]
    np.testing.assert_allclose(norms[0], norms[1])
    np.testing.assert_allclose(dense(same.point), dense(start.point), atol=1e-9)


def test_components_that_are_zero_stay_as_they_are() -> None:
    a, b = normal((4, 2)), normal((5, 2), seed=1)
    a[:, 1] = 0
    left, right = balanced([a, b])
    np.testing.assert_array_equal(right[:, 1], b[:, 1])
    assert np.all(left[:, 1] == 0) and component_norms([left, right])[1] == 0


def test_near_an_exact_fit_the_value_comes_from_the_residual() -> None:
    truth = some_point((6, 7, 8), 3)
    problem = CPProblem(dense(truth))
    off = tuple(f * (1 + 1e-9) for f in truth)
    exact = np.linalg.norm(dense(off) - dense(truth)) ** 2 / 2
    assert problem.at(off).value == pytest.approx(exact, rel=1e-5) and problem.close


def test_the_ridge_is_a_penalty_on_the_factors() -> None:
    shape = (3, 4, 2)
    problem, point, step = CPProblem(normal(shape)), some_point(shape, 2), some_point(shape, 2, seed=5)
    local = Ridged(problem.at(point), 0.3)
    ahead, back = (Ridged(problem.at(added(point, step, h)), 0.3).value for h in (1e-5, -1e-5))
    assert dot(local.gradient, step) == pytest.approx((ahead - back) / 2e-5, rel=1e-6)
    solved = local.solve(step, 0.2)
    assert solved is not None
    np.testing.assert_allclose(flat(added(local.gram(solved), solved, 0.2)), flat(step), atol=1e-9)


# Sweeps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("weights", [0.0, 0.4])
def test_qr_solves_the_same_least_squares_as_the_normal_equations(dtype: str, weights: float) -> None:
    shape, mode = (5, 4, 6, 3), 1
    kind = "complex128" if "complex" in dtype else "float64"
    x, point = normal(shape, kind).astype(dtype), tuple(f.astype(dtype) for f in some_point(shape, 4, kind))
    w, step = np.full(4, weights, dtype="float32" if dtype == "float32" else "float64"), weights / 2
    found = by_qr(x, point, mode, w, np.asarray(step, dtype=w.dtype))
    k = jacobian_of_mode(point, mode)
    gamma = k.T @ k.conj() + np.diag(w)
    expected = np.linalg.solve(gamma.T, (unfold(x, mode) @ k.conj() + step * point[mode]).T).T
    np.testing.assert_allclose(found, expected, atol=1e-3 if dtype == "float32" else 1e-9)


def jacobian_of_mode(point: Point, mode: int) -> np.ndarray:
    """The Khatri–Rao product of all factors but one."""
    rest = [f for k, f in enumerate(point) if k != mode]
    return np.stack([math.prod(np.ix_(*(f[:, r] for f in rest))).ravel() for r in range(rest[0].shape[1])], 1)


@pytest.mark.parametrize("gap", [1e-4, 1e-6])
def test_in_float32_collinear_factors_need_qr(gap: float) -> None:
    """Rows of the table of errors of one ALS solve with exact data, 30 rows and rank 5."""
    rng = np.random.default_rng(0)
    gram = gap * np.eye(5) + (1 - gap) * np.ones((5, 5))
    cholesky = np.linalg.cholesky(gram)
    b, c = (np.linalg.qr(rng.normal(size=(30, 5)))[0] @ cholesky.T for _ in range(2))
    truth = rng.normal(size=(30, 5))
    x = np.einsum("ir,jr,kr->ijk", truth, b, c).astype("float32")
    point = [np.zeros((30, 5), dtype="float32"), b.astype("float32"), c.astype("float32")]
    gamma = (point[1].T @ point[1]) * (point[2].T @ point[2])
    zero = np.zeros(5, dtype="float32")
    by_gram = np.linalg.solve(gamma, np.einsum("ijk,jr,kr->ir", x, *point[1:]).T).T
    errors = [
        np.linalg.norm(a - truth) / np.linalg.norm(truth)
        for a in (by_qr(x, point, 0, zero, zero[0]), by_gram)
    ]
    assert not safe(gamma) and errors[0] < 3e-2 * (1e-6 / gap) ** 0.5 and errors[0] < 0.2 * errors[1]


def test_a_sweep_never_raises_the_error_and_reports_it() -> None:
    x, factors = normal((6, 5, 7)), list(some_point((6, 5, 7), 4))
    before, whole = np.inf, float(np.linalg.norm(x))
    for _ in range(5):
        factors, error = sweep(x, factors, whole)
        assert error == pytest.approx(np.linalg.norm(x - dense(tuple(factors))), rel=1e-9)
        assert error <= before
        before = error


# Derivatives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape, rank", [((4, 3), 1), ((4, 3, 5), 2), ((3, 2, 3, 2), 2)], ids=str)
def test_the_derivative_of_a_fit_is_that_of_the_minimum(
    shape: tuple[int, ...], rank: int, dtype: torch.dtype
) -> None:
    """With noise, so that the residual counts; fitted again for every difference."""
    torch.manual_seed(0)
    exact = CP(tuple(torch.randn(n, rank, dtype=dtype) for n in shape)).dense()
    x = (exact + 0.02 * torch.randn(shape, dtype=dtype)).requires_grad_()
    method = CPGN(tol=1e-14, start="hosvd", cg_steps=100, max_steps=500)
    assert torch.autograd.gradcheck(
        lambda t: method.fit(t, rank, generator=0).value.dense(), x, eps=1e-3, atol=1e-4, fast_mode=True
    )


@pytest.mark.parametrize("method", [CPGN(tol=1e-14), CPD(tol=1e-14), CPNesterov(tol=1e-13, max_steps=2000)])
def test_all_methods_without_ridge_have_the_same_derivative(method: CPGN | CPD | CPNesterov) -> None:
    torch.manual_seed(0)
    x = CP(tuple(torch.randn(n, 2, dtype=torch.float64) for n in (5, 4, 3))).dense()
    x = (x + 0.05 * torch.randn(x.shape, dtype=torch.float64)).requires_grad_()
    value = method.fit(x, 2, generator=0).value
    (gradient,) = torch.autograd.grad((value.dense() ** 2).sum(), x)
    np.testing.assert_allclose(gradient, 2 * value.dense().detach(), atol=1e-5)


def test_scalings_are_left_out_of_the_derivative() -> None:
    point, direction = some_point((4, 3, 5), 2, "complex128"), some_point((4, 3, 5), 2, "complex128", 7)
    kept = across(point, direction)
    gauge = (point[0] * 2j, -1j * point[1], -1j * point[2])
    assert abs(dot(kept, gauge)) < 1e-12
    for a, b in zip(across(point, gauge), point, strict=True):
        assert np.linalg.norm(a) < 1e-12 * np.linalg.norm(b)


def test_without_gradients_nothing_is_attached() -> None:
    factors = some_point((4, 3), 2)
    assert all(a is b for a, b in zip(attached(normal((4, 3)), factors), factors, strict=True))
