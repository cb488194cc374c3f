"""Products of sparse tensors are those of the dense ones."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.algebra import (
    SparseUnfolding,
    mttkrp,
    multi_mode_dot,
    sparse_mttkrp,
    sparse_multi_mode_dot,
    unfold,
)
from tenfold.core.errors import ShapeError
from tenfold.core.sparse import Sparse

LIBRARIES = [np.asarray, torch.as_tensor]
SHAPES = [(7,), (4, 5), (4, 3, 6), (3, 4, 2, 5)]


def some(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """A tensor of which two thirds are zero."""
    random = np.random.default_rng(len(shape))
    values = random.standard_normal(shape) + (
        1j * random.standard_normal(shape) if dtype == "complex128" else 0
    )
    return (values * (random.random(shape) < 0.33)).astype(dtype)


@pytest.mark.parametrize("array", LIBRARIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_sparse_mttkrp_is_mttkrp(array: Any, shape: tuple[int, ...], dtype: str) -> None:
    dense, factors = some(shape, dtype), [some((n, 3), dtype) + 1 for n in shape]
    sparse = Sparse.from_dense(array(dense))
    for mode in range(-1, len(shape)):
        found = sparse_mttkrp(sparse, [array(f) for f in factors], mode)
        np.testing.assert_allclose(np.asarray(found), mttkrp(dense, factors, mode), rtol=1e-4, atol=1e-4)
        assert found.shape == (shape[mode], 3)


def test_sparse_mttkrp_runs_on_jax() -> None:
    jnp = pytest.importorskip("jax.numpy")
    dense, factors = some((3, 4, 5), "float32"), [some((n, 2), "float32") + 1 for n in (3, 4, 5)]
    found = sparse_mttkrp(Sparse.from_dense(jnp.asarray(dense)), [jnp.asarray(f) for f in factors], 1)
    np.testing.assert_allclose(found, mttkrp(dense, factors, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("adjoint", [False, True])
def test_the_chain_of_products_is_that_of_the_dense_tensor(
    shape: tuple[int, ...], dtype: str, adjoint: bool
) -> None:
    dense = some(shape, dtype)
    operands = [some((n, 2 + k), dtype) + 1 for k, n in enumerate(shape)]
    operands = operands if adjoint else [m.T for m in operands]
    for mode in range(len(shape)):
        others = [None if k == mode else m for k, m in enumerate(operands)]
        expected = multi_mode_dot(dense, others, adjoint=adjoint)
        found = sparse_multi_mode_dot(Sparse.from_dense(dense), operands, mode, adjoint=adjoint)
        np.testing.assert_allclose(found, np.moveaxis(expected, mode, 0), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_an_unfolding_without_its_zero_fibres_has_the_same_gram_matrix(dtype: str) -> None:
    dense = some((4, 3, 6), dtype)
    for mode in range(3):
        short, full = SparseUnfolding(Sparse.from_dense(dense), mode), unfold(dense, mode)
        assert short.shape == (full.shape[0], np.any(full != 0, axis=0).sum())
        gram = short.dot(short.adjoint_dot(np.eye(full.shape[0], dtype=dtype)))
        np.testing.assert_allclose(gram, full @ full.conj().T, atol=1e-12)


def test_entries_that_are_listed_twice_count_twice() -> None:
    twice = Sparse(np.array([[0, 1], [0, 1]]), np.array([1.0, 2.0]), (2, 2))
    np.testing.assert_array_equal(sparse_mttkrp(twice, [np.ones((2, 1))] * 2, 0), [[3.0], [0.0]])


def test_a_sparse_tensor_without_entries_gives_zeros() -> None:
    empty = Sparse(np.zeros((0, 2), dtype=int), np.zeros(0), (2, 3))
    assert not sparse_mttkrp(empty, [np.ones((2, 4)), np.ones((3, 4))], 1).any()


def test_sparse_products_are_differentiable() -> None:
    sparse = Sparse.from_dense(torch.as_tensor(some((4, 3, 6), "float64")))
    factors = [torch.ones(n, 2, dtype=torch.float64, requires_grad=True) for n in sparse.shape]
    value = sparse.values.clone().requires_grad_()

    def product(values: torch.Tensor, *matrices: torch.Tensor) -> torch.Tensor:
        return sparse_mttkrp(sparse.map(lambda _: values), matrices, 1)

    assert torch.autograd.gradcheck(product, (value, *factors))


def test_factors_and_operands_that_do_not_fit_are_refused() -> None:
    sparse = Sparse.from_dense(np.ones((2, 3)))
    with pytest.raises(ShapeError, match="do not fit a tensor of shape"):
        sparse_mttkrp(sparse, [np.ones((2, 4)), np.ones((2, 4))], 0)
    with pytest.raises(ShapeError, match="mode"):
        sparse_mttkrp(sparse, [np.ones((2, 4)), np.ones((3, 4))], 2)
    with pytest.raises(ShapeError, match="mode 1 of the tensor has size 3, but its operand is 4 x 5"):
        sparse_multi_mode_dot(sparse, [np.ones((4, 2)), np.ones((4, 5))], 0)
