"""CP of incomplete tensors: recovery from few entries, and the kernels of the Gauss–Newton steps."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import ConvergenceWarning, OptionError, UnsupportedError, WeightError
from tenfold.core.incomplete import Incomplete
from tenfold.core.sparse import Sparse
from tenfold.decompose import CPALS, CPIncomplete
from tenfold.decompose.entries.observed import Problem
from tenfold.formats import CP, LowRank, TensorTrain, Tucker
from tenfold.formats.base import Format


def known(tensor: Any, share: float, seed: int = 0) -> Incomplete:
    """A share of the entries."""
    mask = np.random.default_rng(seed).random(tuple(tensor.shape)) < share
    return Incomplete.from_mask(tensor, torch.as_tensor(mask) if isinstance(tensor, torch.Tensor) else mask)


def off(tensor: Any, value: Format) -> float:
    """The relative error over all entries, known or not."""
    return float(np.linalg.norm(value.dense() - tensor) / np.linalg.norm(tensor))


@pytest.mark.parametrize("seed", range(2))
def test_a_tenth_of_the_entries_give_all(seed: int) -> None:
    x = CP.random((30, 30, 30), 4, like=np.zeros(()), generator=seed).dense()
    fit = CPIncomplete()(known(x, 0.1, seed), 4, generator=seed)
    assert fit.error < 1e-12 and off(x, fit.value) < 1e-8
    assert all(b < a for a, b in zip(fit.trace, fit.trace[1:], strict=False) if a > 1e-12)


def test_a_twentieth_of_the_entries_give_all() -> None:
    x = CP.random((30, 30, 30), 4, like=np.zeros(()), generator=0).dense()
    fit = CPIncomplete(restarts=20)(known(x, 0.05), 4, generator=0)
    assert off(x, fit.value) < 1e-8


def test_noise_on_the_entries_is_averaged_out() -> None:
    x = CP.random((20, 20, 20), 2, like=np.zeros(()), generator=0).dense()
    noisy = x + 0.1 * x.std() * np.random.default_rng(1).standard_normal(x.shape)
    fit = CPIncomplete()(known(noisy, 0.15), 2, generator=0)
    assert 0.08 < fit.error < 0.1 and off(x, fit.value) < 0.06


@pytest.mark.parametrize("dtype", ["complex128", "float32"])
def test_other_dtypes_are_recovered_to_their_accuracy(dtype: str) -> None:
    x = CP.random((9, 10, 11), 2, like=np.zeros((), dtype=dtype), generator=0).dense()
    fit = CPIncomplete()(known(x, 0.3), 2, generator=1)
    assert fit.value.dtype == x.dtype and off(x, fit.value) < (1e-10 if dtype == "complex128" else 1e-4)


def test_torch_gives_gradients_of_the_completed_tensor() -> None:
    x = CP.random((6, 5, 4), 1, like=torch.zeros((), dtype=torch.float64), generator=0).dense()
    some = known(x, 0.5)
    leaf = some.values.clone().requires_grad_()
    value = CPIncomplete(tol=1e-10).fit(some.map(lambda _: leaf), 1, generator=0).value
    (gradient,) = torch.autograd.grad(value.dense().sum(), leaf)
    step = 1e-5 * torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = [
        CPIncomplete(tol=1e-10).fit(some.map(lambda v, s=s: v + s * step), 1, generator=0).value.dense().sum()
        for s in (-1, 1)
    ]
    torch.testing.assert_close((gradient * step).sum(), (sums[1] - sums[0]) / 2, rtol=1e-2, atol=1e-9)


def test_a_complete_tensor_is_fitted_as_by_alternating_least_squares() -> None:
    x = CP.random((5, 6, 7), 2, like=np.zeros(()), generator=0).dense()
    x = x + 0.2 * np.random.default_rng(0).standard_normal((5, 6, 7))
    dense, listed = (CPIncomplete(tol=1e-8).fit(t, 2, generator=0) for t in (x, known(x, 2.0)))
    assert dense.error == listed.error
    full = CPALS(tol=1e-10, max_steps=500, restarts=3, ridge=0).fit(x, 2, generator=0)
    assert dense.error == pytest.approx(full.error, rel=1e-6)


def test_a_known_tensor_of_zeros_is_zero() -> None:
    fit = CPIncomplete()(known(np.zeros((4, 5)), 0.7), 2)
    assert fit.error == 0 and fit.converged and not fit.value.dense().any()


def test_a_slice_without_known_entries_is_refused() -> None:
    mask = np.ones((4, 5, 6), dtype=bool)
    mask[:, :, 3] = False
    with pytest.raises(WeightError, match="index 3 of mode 2 has no known entry"):
        CPIncomplete()(Incomplete.from_mask(np.ones((4, 5, 6)), mask), 2)


def test_known_entries_are_finite() -> None:
    with pytest.raises(WeightError, match="NaN or infinite"):
        CPIncomplete()(known(np.full((3, 4), np.inf), 0.9), 1)


def test_sparse_tensors_are_not_incomplete() -> None:
    with pytest.raises(UnsupportedError, match="takes no sparse tensors"):
        CPIncomplete()(Sparse.from_dense(np.eye(3)), 1)


def test_stopping_early_is_said() -> None:
    x = np.random.default_rng(0).standard_normal((8, 8, 8))
    with pytest.warns(ConvergenceWarning, match="stopped after 1 steps"):
        CPIncomplete(max_steps=1)(known(x, 0.5), 3, generator=0)


@pytest.mark.parametrize(
    "options", [{"tol": -1}, {"ridge": -1}, {"restarts": 0}, {"cg_steps": 0}, {"max_steps": 0}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        CPIncomplete(**options)


# Kernels, against the Jacobian by finite differences ------------------------------------------------------


FORMATS = [
    (CP, (4, 3, 5), 2),
    (Tucker, (4, 3, 5), 2),
    (TensorTrain, (3, 4, 2, 3), 2),
    (LowRank, (4, 5), 2),
    (CP, (6,), 2),
]


@pytest.mark.parametrize("kind, shape, rank", FORMATS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_products_with_the_jacobian_are_right(kind: Any, shape: Any, rank: int, dtype: str) -> None:
    value = kind.random(shape, rank, like=np.zeros((), dtype=dtype), generator=0)
    direction = kind.random(shape, rank, like=np.zeros((), dtype=dtype), generator=1)
    some = known(kind.random(shape, rank, like=np.zeros((), dtype=dtype), generator=2).dense(), 0.7)
    problem = Problem(some, value.network, 0.3)
    z, x = problem.flat(value.factors), problem.flat(direction.factors)
    here = problem(z)
    at = tuple(some.indices.T)
    np.testing.assert_allclose(here.model, value.dense()[at], atol=1e-12)
    ahead, behind = (problem(tuple(a + s * 1e-6 * b for a, b in zip(z, x, strict=True))) for s in (1, -1))
    np.testing.assert_allclose(here.jacobian(x), (ahead.model - behind.model) / 2e-6, atol=1e-7)
    y = some.values
    pairs = zip(x, here.adjoint(y), strict=True)
    np.testing.assert_allclose(sum(np.vdot(a, b) for a, b in pairs), np.vdot(here.jacobian(x), y), atol=1e-12)
    slope = sum(np.vdot(g, b).real for g, b in zip(here.gradient, x, strict=True))
    np.testing.assert_allclose(slope, (ahead.value - behind.value) / 2e-6, rtol=1e-5)
    for a, b in zip(problem.folded(z), value.factors, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind, shape, rank", FORMATS)
def test_blocks_of_the_preconditioner_are_those_of_the_gram_matrix(kind: Any, shape: Any, rank: int) -> None:
    value = kind.random(shape, rank, like=np.zeros((), dtype="complex128"), generator=0)
    some = known(value.dense(), 0.8)
    here = Problem(some, value.network)(Problem(some, value.network).flat(value.factors))
    whole = here._whole.matrix
    start = 0
    for k, z in enumerate(here.point):
        width = z.shape[1]
        for row in range(z.shape[0]):
            block = whole[start : start + width, start : start + width]
            np.testing.assert_allclose(here._blocks[k].gram_blocks()[row], block, atol=1e-12)
            np.testing.assert_allclose(here._blocks[k].diagonals()[row], np.diag(block).real, atol=1e-12)
            start += width


def test_direct_steps_solve_the_normal_equations() -> None:
    value = Tucker.random((4, 3, 5), 2, like=np.zeros(()), generator=0)
    problem = Problem(known(value.dense(), 0.9), value.network, 0.1)
    here = problem(problem.flat(value.factors))
    target = tuple(np.ones_like(z) for z in here.point)
    step = here.solve(target, 0.2)
    assert step is not None
    for image, own, wanted in zip(here.gram(step), step, target, strict=True):
        np.testing.assert_allclose(image + 0.2 * own, wanted, atol=1e-9)
