from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from tenfold.algebra import fold, kronecker, mode_dot, multi_mode_dot, unfold
from tenfold.core.errors import ShapeError

SHAPES = [(3,), (2, 3), (2, 3, 4), (4, 3, 20), (2, 1, 3, 2), (2, 3, 2, 1, 2)]
EVERY_MODE = [(shape, mode) for shape in SHAPES for mode in range(-len(shape), len(shape))]
DTYPES = ["float32", "float64", "complex128"]


def close(x, y, atol=1e-10):
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=atol, rtol=0)


def operands_for(library, shape, rows=2, dtype="float64"):
    return [library.normal(rows, size, seed=n, dtype=dtype) for n, size in enumerate(shape)]


def test_running_example_of_kolda_and_bader(library):
    tensor = library.array(np.arange(1.0, 25).reshape((3, 4, 2), order="F"))
    product = mode_dot(tensor, library.array([[1.0, 3, 5], [2, 4, 6]]), 0)
    close(product[..., 0], [[22, 49, 76, 103], [28, 64, 100, 136]])
    close(product[..., 1], [[130, 157, 184, 211], [172, 208, 244, 280]])
    close(mode_dot(tensor, library.array([1.0, 2, 3, 4]), 1), [[70, 190], [80, 200], [90, 210]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "mode"), EVERY_MODE)
def test_a_mode_product_multiplies_the_unfolding(library, shape, mode, dtype):
    tensor, matrix = library.normal(*shape, dtype=dtype), library.normal(5, shape[mode], seed=1, dtype=dtype)
    result = list(shape)
    result[mode] = 5
    product = mode_dot(tensor, matrix, mode)
    close(product, fold(matrix @ unfold(tensor, mode), mode, result), 1e-5 if dtype == "float32" else 1e-10)
    assert product.dtype == tensor.dtype


@pytest.mark.parametrize(("shape", "mode"), EVERY_MODE)
def test_a_vector_removes_its_mode(library, shape, mode):
    tensor, vector = library.normal(*shape), library.normal(shape[mode], seed=1)
    close(mode_dot(tensor, vector, mode), np.tensordot(np.asarray(tensor), np.asarray(vector), (mode, 0)))


def test_products_with_different_modes_commute(library):
    tensor = library.normal(2, 3, 4)
    for (m, u), (n, v) in combinations(enumerate(operands_for(library, (2, 3, 4))), 2):
        close(mode_dot(mode_dot(tensor, u, m), v, n), mode_dot(mode_dot(tensor, v, n), u, m))


def test_products_with_the_same_mode_compose(library):
    tensor, u, v = library.normal(2, 3, 4), library.normal(5, 3, seed=1), library.normal(2, 5, seed=2)
    close(mode_dot(mode_dot(tensor, u, 1), v, 1), mode_dot(tensor, v @ u, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_many_products_equal_one_after_the_other(library, shape):
    tensor, operands = library.normal(*shape), operands_for(library, shape)
    expected = tensor
    for mode, operand in enumerate(operands):
        expected = mode_dot(expected, operand, mode)
    close(multi_mode_dot(tensor, operands), expected)


def test_many_products_are_a_kronecker_product_of_the_unfolding(library):
    tensor = library.normal(2, 3, 4)
    u, v, w = operands_for(library, (2, 3, 4))
    close(unfold(multi_mode_dot(tensor, [u, v, w]), 1), v @ unfold(tensor, 1) @ kronecker([u, w]).T)


def test_the_order_of_the_operands_does_not_matter(library):
    tensor, operands = library.normal(2, 3, 4), operands_for(library, (2, 3, 4), rows=3)
    expected = multi_mode_dot(tensor, operands)
    for modes in permutations(range(3)):
        close(multi_mode_dot(tensor, [operands[mode] for mode in modes], modes), expected)


def test_vectors_and_none_among_many_operands(library):
    tensor, u, w = library.normal(2, 3, 4, 5), library.normal(3, seed=1), library.normal(7, 5, seed=2)
    expected = np.einsum("ijkl,j,ml->ikm", *map(np.asarray, (tensor, u, w)))
    close(multi_mode_dot(tensor, [None, u, None, w]), expected)
    close(multi_mode_dot(tensor, [w, u], [-1, 1]), expected)
    assert multi_mode_dot(tensor, []) is tensor


def test_vectors_for_all_modes_leave_a_number(library):
    tensor = library.normal(2, 3)
    assert multi_mode_dot(tensor, [library.normal(2), library.normal(3)]).ndim == 0


def test_adjoint_conjugates_and_transposes_the_operands(library):
    tensor = library.normal(2, 3, dtype="complex128")
    u, v = library.normal(2, 5, seed=1, dtype="complex128"), library.normal(3, seed=2, dtype="complex128")
    expected = np.einsum("ij,ip,j->p", np.asarray(tensor), np.asarray(u).conj(), np.asarray(v).conj())
    close(multi_mode_dot(tensor, [u, v], adjoint=True), expected)


def test_orthonormal_operands_and_their_adjoint_project(library):
    tensor = library.normal(4, 5, 6)
    bases = [library.array(np.linalg.qr(np.asarray(library.normal(n, 2, seed=n)))[0]) for n in (4, 5, 6)]
    core = multi_mode_dot(tensor, bases, adjoint=True)
    assert tuple(core.shape) == (2, 2, 2)
    close(multi_mode_dot(multi_mode_dot(core, bases), bases, adjoint=True), core)


def test_tensors_that_are_not_contiguous(library):
    tensor = library.xp.permute_dims(library.normal(2, 3, 4), (2, 0, 1))
    matrix = library.normal(3, 4).T
    close(mode_dot(tensor, matrix.T, 0), np.einsum("ijk,mi->mjk", np.asarray(tensor), np.asarray(matrix.T)))


def test_mode_products_are_differentiable():
    tensor = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    for mode, size in enumerate((2, 3, 4)):
        matrix = torch.randn(2, size, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda t, m, mode=mode: mode_dot(t, m, mode), (tensor, matrix))


@pytest.mark.parametrize("operand_shape", [(2, 3), (3,), (4, 2, 4)])
def test_an_operand_that_does_not_fit_is_refused(library, operand_shape):
    for call in (
        lambda operand: mode_dot(library.normal(2, 3, 4), operand, 2),
        lambda operand: multi_mode_dot(library.normal(2, 3, 4), [operand], [2]),
    ):
        with pytest.raises(ShapeError) as raised:
            call(library.normal(*operand_shape))
        assert str(raised.value) == (
            f"mode 2 of the tensor has size 4, but its operand has shape {operand_shape}.\n"
            "Give a matrix of shape (j, 4) or a vector of length 4."
        )


@pytest.mark.parametrize("modes", [[0, 0], [0], [0, -3]])
def test_modes_that_repeat_or_are_too_few_are_refused(library, modes):
    with pytest.raises(ShapeError, match="expected a different mode for each of 2 operands, but got"):
        multi_mode_dot(library.normal(2, 3, 4), [library.normal(2, 2), library.normal(2, 2)], modes)
