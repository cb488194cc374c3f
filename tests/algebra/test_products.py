import numpy as np
import pytest
import torch

from tenfold.algebra import hadamard, inner, khatri_rao, kronecker, outer
from tenfold.core.errors import ShapeError

DTYPES = ["float32", "float64", "complex128"]


def close(x, y, atol=1e-10):
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=atol, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kronecker_is_that_of_numpy(library, dtype):
    a, b = library.normal(2, 3, dtype=dtype), library.normal(4, 1, seed=1, dtype=dtype)
    close(kronecker([a, b]), np.kron(np.asarray(a), np.asarray(b)))
    assert kronecker([a, b]).dtype == a.dtype


def test_kronecker_multiplies_factor_by_factor(library):
    a, b = library.normal(2, 3), library.normal(4, 5, seed=1)
    c, d = library.normal(3, 2, seed=2), library.normal(5, 3, seed=3)
    close(kronecker([a, b]) @ kronecker([c, d]), kronecker([a @ c, b @ d]))


def test_kronecker_associates(library):
    a, b, c = (library.normal(2, 3, seed=seed) for seed in range(3))
    close(kronecker([a, b, c]), kronecker([a, kronecker([b, c])]))
    assert kronecker([a]) is a


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_of_khatri_rao_are_kronecker_products(library, dtype):
    matrices = [library.normal(rows, 4, seed=rows, dtype=dtype) for rows in (2, 3, 5)]
    product = khatri_rao(matrices)
    assert tuple(product.shape) == (30, 4)
    for r in range(4):
        close(product[:, r : r + 1], kronecker([matrix[:, r : r + 1] for matrix in matrices]))


def test_gram_matrix_of_khatri_rao_is_the_hadamard_product_of_gram_matrices(library):
    matrices = [library.normal(rows, 4, seed=rows) for rows in (2, 3, 5)]
    product = khatri_rao(matrices)
    close(product.T @ product, hadamard([matrix.T @ matrix for matrix in matrices]))


def test_khatri_rao_under_kronecker(library):
    a, b = library.normal(2, 3), library.normal(4, 5, seed=1)
    c, d = library.normal(3, 2, seed=2), library.normal(5, 2, seed=3)
    close(kronecker([a, b]) @ khatri_rao([c, d]), khatri_rao([a @ c, b @ d]))


def test_outer_of_vectors_and_matrices(library):
    a, b, c = library.normal(2), library.normal(3, 4, seed=1), library.normal(2, seed=2)
    close(outer([a, b, c]), np.einsum("i,jk,l->ijkl", *map(np.asarray, (a, b, c))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_inner_of_all_modes_is_that_of_the_entries(library, dtype):
    a, b = library.normal(2, 3, 4, dtype=dtype), library.normal(2, 3, 4, seed=1, dtype=dtype)
    close(inner(a, b), np.vdot(np.asarray(a), np.asarray(b)), atol=1e-5 if dtype == "float32" else 1e-10)
    assert inner(a, b).ndim == 0


def test_inner_with_itself_is_the_squared_norm(library):
    a = library.normal(2, 3, dtype="complex128")
    close(inner(a, a), np.linalg.norm(np.asarray(a)) ** 2)


def test_inner_of_some_modes_leaves_the_others(library):
    a, b = library.normal(5, 2, 3, dtype="complex128"), library.normal(2, 3, 4, seed=1, dtype="complex128")
    close(inner(a, b, 2), np.einsum("ijk,jkl->il", np.asarray(a).conj(), np.asarray(b)))
    close(inner(a, a, 0), outer([library.xp.conj(a), a]))


def test_inner_of_outer_products_factorises(library):
    u, v, x, y = (library.normal(3, seed=seed) for seed in range(4))
    close(inner(outer([u, v]), outer([x, y])), inner(u, x) * inner(v, y))


@pytest.mark.parametrize("modes", [None, 1, 3, -1])
def test_inner_refuses_modes_of_different_sizes(library, modes):
    with pytest.raises(ShapeError, match="must have the sizes of the first modes of the second"):
        inner(library.normal(2, 3), library.normal(2, 4), modes)


@pytest.mark.parametrize("product", [kronecker, khatri_rao])
def test_products_of_matrices_refuse_what_is_none(library, product):
    with pytest.raises(ShapeError, match=r"expected matrices, but got shapes \(2, 3\), \(4,\)"):
        product([library.normal(2, 3), library.normal(4)])
    with pytest.raises(ShapeError, match="expected matrices, but got shapes of nothing"):
        product([])


def test_khatri_rao_refuses_different_numbers_of_columns(library):
    with pytest.raises(ShapeError, match=r"have 3, 4 columns\.\nAll must have the same number"):
        khatri_rao([library.normal(2, 3), library.normal(2, 4)])


def test_hadamard_does_not_broadcast(library):
    with pytest.raises(ShapeError, match=r"expected tensors of one shape, but got \(2, 3\), \(1, 3\)"):
        hadamard([library.normal(2, 3), library.normal(1, 3)])


def test_the_outer_product_of_nothing_is_refused():
    with pytest.raises(ShapeError, match="outer product of no tensor"):
        outer([])


def test_products_are_differentiable():
    a, b = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for product in (kronecker, khatri_rao, hadamard, outer):
        assert torch.autograd.gradcheck(lambda *operands, product=product: product(operands), (a, b))
    assert torch.autograd.gradcheck(inner, (a, b))


def test_a_khatri_rao_product_without_columns_has_its_rows() -> None:
    assert khatri_rao([np.ones((2, 0)), np.ones((3, 0))]).shape == (6, 0)
