"""CP algorithms on the tensors by which the literature tells them apart."""

import itertools
import statistics
import tracemalloc
import warnings

import numpy as np
import pytest
import torch

from tenfold.core.eigen import eigen, eigenbasis
from tenfold.core.errors import ConvergenceWarning, OptionError, ShapeError
from tenfold.decompose import CPALS, CPD, CPEPC, CPGN, CPNesterov, Fit, Match, Method, matched
from tenfold.decompose.cp.gevd import gevd
from tenfold.decompose.cp.grams import component_norms
from tenfold.decompose.cp.match import assigned, congruences
from tenfold.decompose.cp.pipeline import compressed
from tenfold.formats import CP

SEEDS = range(5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def collinear(c: float, seed: int, size: int = 20, rank: int = 5, order: int = 3) -> CP:
    """Factors whose columns have cosines c (`matrandcong` of the Tensor Toolbox)."""
    draw, gram = rng(seed), (1 - c) * np.eye(rank) + c * np.ones((rank, rank))
    root = np.linalg.cholesky(gram).T
    return CP(tuple(np.linalg.qr(draw.normal(size=(size, rank)))[0] @ root for _ in range(order)))


def noisy(truth: CP, snr: float, seed: int) -> np.ndarray:
    """The tensor with noise, `snr` in decibels."""
    x, noise = np.asarray(truth.dense()), rng(seed + 100).normal(size=truth.shape)
    return x + noise * (np.linalg.norm(x) / np.linalg.norm(noise) * 10 ** (-snr / 20))


def table(method: Method, c: float, snr: float) -> tuple[list[Fit], list[Match]]:
    """Fits of five tensors, and how they match their truths."""
    truths = [collinear(c, seed) for seed in SEEDS]
    fits = [method.fit(noisy(t, snr, s), 5, generator=s) for s, t in enumerate(truths)]
    return fits, [matched(t, f.value) for t, f in zip(truths, fits, strict=True)]


def median(values: object) -> float:
    return statistics.median(values)  # type: ignore[call-overload, no-any-return]


# Swamps: the numbers of steps are the medians measured, and a little more ---------------------------------


@pytest.mark.parametrize(
    "c, snr, steps, congruence",
    [
        (0.0, np.inf, 8, 0.9999),
        (0.0, 40, 8, 0.999),
        (0.5, np.inf, 12, 0.9999),
        (0.9, np.inf, 30, 0.9999),
        (0.9, 40, 30, 0.999),
        (0.99, np.inf, 110, 0.9999),
        (0.99, 40, 90, 0.97),
    ],
)
def test_gauss_newton_finds_collinear_components_from_random_starts(
    c: float, snr: float, steps: int, congruence: float
) -> None:
    fits, matches = table(CPGN(start="random"), c, snr)
    assert sum(m.worst > 0.9 for m in matches) == 5
    assert median(m.worst for m in matches) > congruence
    assert median(f.steps for f in fits) <= steps
    assert median(f.error for f in fits) < (1e-12 if snr == np.inf else 9.9e-3)


@pytest.mark.parametrize(
    "c, snr, steps", [(0.0, np.inf, 2), (0.0, 40, 2), (0.5, np.inf, 2), (0.9, np.inf, 2), (0.9, 40, 8)]
)
def test_from_eigenvectors_it_takes_a_few_steps(c: float, snr: float, steps: int) -> None:
    fits, matches = table(CPGN(), c, snr)
    assert min(m.worst for m in matches) > 0.99
    assert median(f.steps for f in fits) <= steps
    assert median(f.error for f in fits) < (1e-13 if snr == np.inf else 9.9e-3)


@pytest.mark.parametrize("c, snr", [(0.0, 40), (0.9, np.inf), (0.9, 40), (0.99, np.inf), (0.99, 40)])
def test_the_default_finds_every_component(c: float, snr: float) -> None:
    fits, matches = table(CPD(), c, snr)
    assert min(m.worst for m in matches) > (0.9 if c == 0.99 and snr == 40 else 0.999)
    assert all(f.converged for f in fits)
    assert max(f.error for f in fits) < (1e-13 if snr == np.inf else 9.9e-3)


@pytest.mark.parametrize("c", [0.5, 0.9])
def test_momentum_saves_most_sweeps_in_swamps(c: float) -> None:
    plain, _ = table(CPALS(start="random", ridge=0.0, max_steps=1000), c, 40)
    fast, matches = table(CPNesterov(start="random", max_steps=1000), c, 40)
    assert min(m.worst for m in matches) > 0.999
    assert max(f.error for f in fast) <= max(f.error for f in plain) * (1 + 1e-4)
    gain = median(f.steps for f in plain) / median(f.steps for f in fast)
    assert gain > (5 if c == 0.9 else 1.2)


def test_momentum_never_raises_the_error() -> None:
    x = rng().normal(size=(9, 8, 7))
    trace = CPNesterov(max_steps=60, tol=0).fit(x, 12, generator=0).trace
    assert len(trace) == 60 and all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(trace))


def test_orthogonal_components_trap_als_and_not_the_default() -> None:
    """Two columns merge and a component is lost, with error sqrt(λ² / Σ λ²)."""
    lost = 0
    for seed in range(8):
        q = np.linalg.qr(rng(seed).normal(size=(8, 3)))[0]
        weights = np.array([3.0, 2.0, 1.0])
        truth = CP((q * weights, q, q))
        x = np.asarray(truth.dense())
        for mode in range(3):
            s = np.linalg.svd(np.moveaxis(x, mode, 0).reshape(8, -1), compute_uv=False)
            np.testing.assert_allclose(s[:3], weights)
        als = CPALS(start="random", ridge=0.0, tol=1e-8, max_steps=300).fit(x, 3, generator=seed)
        lost += als.error > 0.1
        assert CPD().fit(x, 3, generator=seed).error < 1e-13
        best = CPD().fit(x, 1, generator=seed)
        assert best.error == pytest.approx((5 / 14) ** 0.5, abs=1e-9)
        assert matched(CP((q[:, :1],) * 3), best.value).worst > 1 - 1e-9
    assert lost > 0


# Ranks and border ranks ------------------------------------------------------------------------------------


def multiplication(d: int) -> np.ndarray:
    """T[(i, j), (j, l), (l, i)] = 1: the tensor of the product of d × d matrices."""
    x = np.zeros((d,) * 6)
    for i, j, k in itertools.product(range(d), repeat=3):
        x[i, j, j, k, k, i] = 1
    return x.reshape(d * d, d * d, d * d)


@pytest.mark.parametrize("method", [CPD(), CPGN(start="random", damped=True, ridge=0.003)], ids=str)
def test_two_by_two_matrices_are_multiplied_with_seven_products(method: Method) -> None:
    x = multiplication(2)
    s = np.linalg.svd(x.reshape(4, -1), compute_uv=False)
    np.testing.assert_allclose(s, 2**0.5)
    errors = [method.fit(x, 7, generator=seed).error for seed in range(4)]
    assert max(errors) < 1e-12
    assert method.fit(x, 6, generator=0).error > 1e-2


def test_three_by_three_matrices_are_multiplied_with_23_products() -> None:
    """Laderman's rank; of his decomposition there are many others."""
    x = multiplication(3)
    method = CPGN(start="random", damped=True, ridge=0.003, cg_steps=60, tol=1e-6, restarts=5)
    fit = method.fit(x, 23, generator=2)
    assert fit.error < 1e-12 and fit.converged
    assert float(np.max(component_norms(fit.value.matrices))) < 10
    a, b = rng().normal(size=(2, 3, 3))
    product = np.einsum("pqr,p,q->r", fit.value.dense(), a.ravel(), b.ravel()).reshape(3, 3).T
    np.testing.assert_allclose(product, a @ b, atol=1e-11)


W = np.zeros((2, 2, 2))
W[0, 0, 1] = W[0, 1, 0] = W[1, 0, 0] = 1


def test_w_has_rank_three_and_no_best_approximation_of_rank_two() -> None:
    assert CPD().fit(W, 3, generator=0).error < 1e-10
    fit = CPD(tol=1e-9).fit(W, 2, generator=0)
    assert fit.error < 1e-2 and not fit.converged
    assert float(np.max(component_norms(fit.value.matrices))) > 30
    with pytest.warns(ConvergenceWarning, match="CPD stopped"):
        CPD(tol=1e-9)(W, 2, generator=0)
    bounded = CPEPC().fit(W, 2, generator=0)
    assert float(np.max(component_norms(bounded.value.matrices))) < 10
    assert CPD(tol=1e-9).fit(W, 1, generator=0).error == pytest.approx(5**0.5 / 3, abs=1e-9)


KRUSKAL = np.stack([np.eye(2), np.array([[0.0, 1.0], [-1.0, 0.0]])], axis=2)


@pytest.mark.parametrize("method", [CPD(), CPGN(), CPGN(start="random")], ids=str)
def test_kruskals_tensor_has_rank_two_over_the_complex_numbers_only(method: Method) -> None:
    assert method.fit(KRUSKAL.astype(np.complex128), 2, generator=0).error < 1e-12
    assert method.fit(KRUSKAL, 2, generator=0).error > 1e-3
    assert method.fit(KRUSKAL, 3, generator=0).error < 1e-6


def test_random_tensors_have_rank_two_as_often_as_their_hyperdeterminant_is_positive() -> None:
    for seed in range(30):
        x = rng(seed).normal(size=(2, 2, 2))
        pencil = np.linalg.eigvals(x[:, :, 0] @ np.linalg.inv(x[:, :, 1]))
        exact = CPGN().fit(x, 2, generator=0).error < 1e-10
        assert exact == bool(np.all(np.isreal(pencil)))


# Parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape, rank", [((6, 5, 4), 5), ((3, 6, 7), 6), ((3, 5, 2, 6), 5)], ids=str)
def test_eigenvectors_give_the_decomposition_of_low_rank(
    shape: tuple[int, ...], rank: int, dtype: str
) -> None:
    truth = CP.random(shape, rank, like=np.zeros((), dtype=dtype), generator=1)
    for library in (np.asarray, torch.asarray):
        found = gevd(
            library(truth.dense()), rank, np.random.default_rng(0) if library is np.asarray else None
        )
        assert found is not None
        assert matched(truth, CP(tuple(np.asarray(f) for f in found))).worst > 1 - 1e-8


@pytest.mark.parametrize("shape, rank", [((4, 5), 3), ((5, 4, 3), 5), ((7,), 1), ((4, 4, 1), 4)], ids=str)
def test_eigenvectors_are_not_for_everything(shape: tuple[int, ...], rank: int) -> None:
    assert gevd(rng().normal(size=shape), rank, rng()) is None


def test_a_start_from_eigenvectors_survives_ranks_that_the_tensor_does_not_have() -> None:
    x = np.asarray(CP.random((6, 5, 4), 2, like=np.zeros(()), generator=1).dense())
    assert CPGN().fit(x, 4, generator=0).error < 1e-10


def test_eigenvectors_of_general_matrices() -> None:
    x = rng().normal(size=(6, 6))
    values, vectors = eigen(x)
    np.testing.assert_allclose(x @ vectors, vectors * values, atol=1e-12)
    basis = eigenbasis(x)
    inside = basis @ np.linalg.lstsq(basis, x @ basis, rcond=None)[0]
    assert basis.dtype == x.dtype and np.linalg.cond(basis) < 1e6
    np.testing.assert_allclose(inside, x @ basis, atol=1e-10)


def test_modes_are_cut_to_the_rank_where_that_pays() -> None:
    x = np.asarray(CP.random((30, 20, 4), 3, like=np.zeros(()), generator=0).dense())
    assert compressed(x, 3, 0.5, 0).core.shape == (8, 8, 4)
    assert compressed(x, 25, 0.5, 0).core is x
    fits = [CPD(compress=c).fit(x, 3, generator=0) for c in (0.0, 0.5)]
    assert max(f.error for f in fits) < 1e-13


def test_compression_and_the_trace_keep_the_true_error() -> None:
    truth = collinear(0.5, 0)
    x = noisy(truth, 20, 0)
    fit = CPD().fit(x, 5, generator=0)
    assert fit.error == pytest.approx(np.linalg.norm(x - fit.value.dense()) / np.linalg.norm(x), rel=1e-9)
    assert fit.trace[-1] == pytest.approx(fit.error, rel=1e-6) and fit.error < 0.1


def kernel(size: int) -> np.ndarray:
    """As of a trained convolution: singular values that fall slowly, faster over the positions."""
    x = rng().normal(size=(size, size, 3, 3))
    for mode, power in enumerate((0.5, 0.5, 1.0, 1.0)):
        n = x.shape[mode]
        q = np.linalg.qr(rng(mode).normal(size=(n, n)))[0] * np.arange(1, n + 1) ** -power
        x = np.moveaxis(np.tensordot(q, x, axes=(1, mode)), 0, mode)
    return np.ascontiguousarray(x, dtype="float32")


@pytest.mark.parametrize(
    "method",
    [CPALS(max_steps=3), CPNesterov(max_steps=3), CPGN(max_steps=3, start="hosvd"), CPD(max_steps=3, warm=2)],
    ids=str,
)
def test_a_kernel_takes_less_than_three_times_its_memory(method: Method) -> None:
    x = kernel(256)
    method.fit(x, 64, generator=0)
    tracemalloc.start()
    method.fit(x, 64, generator=0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert x.nbytes + most < 3 * x.nbytes


def test_momentum_has_the_error_of_als_on_kernels_in_a_third_of_its_sweeps() -> None:
    x = torch.from_numpy(kernel(96))
    als = CPALS(ridge=0.0, tol=0, max_steps=60).fit(x, 48, generator=0)
    fast = CPNesterov(tol=0, max_steps=20).fit(x, 48, generator=0)
    assert fast.error <= als.error


# Matching --------------------------------------------------------------------------------------------------


def test_components_are_matched_whatever_their_order_and_scale() -> None:
    a = CP.random((4, 5, 6), 4, like=np.zeros((), dtype=np.complex128), generator=0)
    order = [2, 0, 3, 1]
    b = CP(tuple(f[:, order] * (1j * (k + 1)) for k, f in enumerate(a.matrices)))
    match = matched(a, b)
    assert [order[k] for k in match.order] == [0, 1, 2, 3]
    assert match.worst == pytest.approx(1) and match.score == pytest.approx(1)
    table = np.asarray(congruences(a, a))
    np.testing.assert_allclose(np.diag(table), 1)
    assert np.all(table <= 1 + 1e-12)


def test_more_components_than_the_truth_has_may_be_found() -> None:
    a = CP.random((4, 5, 6), 2, like=np.zeros(()), generator=0)
    b = CP.random((4, 5, 6), 2, like=np.zeros(()), generator=1)
    both = CP(tuple(np.concatenate(pair, axis=1) for pair in zip(b.matrices, a.matrices, strict=True)))
    assert matched(a, both).order == (2, 3)
    with pytest.raises(ShapeError, match="4 components cannot be paired with 2"):
        matched(both, a)
    with pytest.raises(ShapeError, match="cannot be compared"):
        matched(a, CP.random((4, 5), 2, like=np.zeros(()), generator=0))


def test_the_assignment_is_the_best_of_all() -> None:
    for seed in range(200):
        draw = rng(seed)
        rows = int(draw.integers(1, 5))
        gain = draw.random((rows, int(draw.integers(rows, 6)))).round(int(draw.integers(1, 4)))
        found = assigned(gain.tolist())
        every = itertools.permutations(range(gain.shape[1]), rows)
        best = max(sum(gain[r, c] for r, c in enumerate(choice)) for choice in every)
        assert len(set(found)) == rows
        assert sum(gain[r, c] for r, c in enumerate(found)) == pytest.approx(best)


@pytest.mark.parametrize(
    "options",
    [
        (CPGN, {"restarts": 0}),
        (CPGN, {"start": "zeros"}),
        (CPGN, {"ridge": -1.0}),
        (CPGN, {"max_steps": 0}),
        (CPGN, {"tol": -1.0}),
        (CPNesterov, {"start": "zeros"}),
        (CPNesterov, {"tol": -1.0}),
        (CPD, {"starts": 0}),
        (CPD, {"warm": 0}),
        (CPD, {"compress": 2.0}),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: tuple[type[Method], dict[str, float]]) -> None:
    method, values = options
    with pytest.raises(OptionError):
        method(**values)


@pytest.mark.parametrize("method", [CPD(), CPGN(), CPNesterov(max_steps=500)], ids=str)
def test_a_fit_that_converges_does_not_warn(method: Method) -> None:
    x = CP.random((8, 7, 6), 3, like=np.zeros(()), generator=0).dense()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(x, 3, generator=0)
