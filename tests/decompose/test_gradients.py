"""Gradients pass through every decomposition that has one, also where singular values coincide."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tenfold.core.linalg import leading_left, solve_psd, truncated_svd
from tenfold.core.svd_gradient import leading_eigh, left_svd
from tenfold.decompose import (
    HOSVD,
    STHOSVD,
    TTSVD,
    Method,
    RandomizedHOSVD,
    RandomizedSVD,
    RandomizedTTSVD,
    SlicedSVD,
    TruncatedSVD,
)
from tenfold.testing.libraries import LIBRARIES

pytestmark = pytest.mark.filterwarnings(  # of PyTorch about itself, when its forward mode is loaded
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)

SHAPES = [(5, 4), (4, 5), (4, 4), (7, 3)]
SPECTRA = {
    "apart": (5.0, 4.0, 2.0, 1.0),
    "equal": (5.0, 5.0, 2.0, 1.0),
    "nearly equal": (5.0, 5.0 * (1 - 1e-9), 2.0, 1.0),
    "close": (5.0, 5.0 * (1 - 1e-5), 1e-6, 1e-7),
    "of rank 2": (3.0, 1.0, 0.0, 0.0),
}
DTYPES = [torch.float64, torch.complex128]


def matrix(shape: tuple[int, int], values: tuple[float, ...], dtype: Any = torch.float64) -> Tensor:
    """A matrix with these singular values that asks for gradients."""
    source = torch.Generator().manual_seed(0)
    sides = [torch.randn(n, min(shape), generator=source, dtype=dtype) for n in shape]
    u, v = (torch.linalg.qr(side)[0] for side in sides)
    return ((u * torch.tensor(values[: min(shape)], dtype=torch.float64)) @ v.mH).requires_grad_()


def approximation(a: Tensor) -> Tensor:
    u, s, vh = truncated_svd(a, 2)
    return (u * s) @ vh


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_best_approximation_has_its_gradient(shape: tuple[int, int], spectrum: str, dtype: Any) -> None:
    assert gradcheck(approximation, matrix(shape, SPECTRA[spectrum], dtype), check_forward_ad=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_triplets_that_are_apart_have_their_own_gradients(
    shape: tuple[int, int], dtype: Any
) -> None:
    a = matrix(shape, SPECTRA["apart"], dtype)
    assert gradcheck(lambda a: truncated_svd(a, min(a.shape)), a, check_forward_ad=True)
    assert gradcheck(lambda a: truncated_svd(a, 2), a, check_forward_ad=True)


@pytest.mark.parametrize("spectrum", ["apart", "equal"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_spaces_of_leading_vectors_have_their_gradient(dtype: Any, spectrum: str) -> None:
    def projection(a: Tensor) -> Tensor:
        basis, _ = leading_left(a, 2)
        return basis @ basis.mH

    def by_eigenvectors(a: Tensor) -> Tensor:
        vectors, _ = leading_eigh(a @ a.mH, 2)
        return vectors @ vectors.mH

    for shape in ((4, 9), (9, 4)):
        assert gradcheck(projection, matrix(shape, SPECTRA[spectrum], dtype), check_forward_ad=True)
    a = matrix((4, 5), SPECTRA[spectrum], dtype)
    assert gradcheck(by_eigenvectors, a, check_forward_ad=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_have_gradients(dtype: Any) -> None:
    assert gradgradcheck(approximation, matrix((4, 3), SPECTRA["apart"], dtype))
    square = matrix((3, 4), SPECTRA["apart"], dtype)
    assert gradgradcheck(lambda a: leading_eigh(a @ a.mH, 2)[1], square)


def test_gradients_are_finite_where_there_is_none() -> None:
    for values in ((5.0, 5.0, 5.0, 1.0), (0.0, 0.0, 0.0, 0.0)):
        a = matrix((5, 4), values)
        (gradient,) = torch.autograd.grad(approximation(a).sum(), a)
        assert bool(torch.isfinite(gradient).all())


def test_the_gradient_in_single_precision_is_that_in_double() -> None:
    a = matrix((6, 5), (3.0, 3.0, 1.0, 0.5, 0.1))
    low = a.detach().float().requires_grad_()
    gradients = [torch.autograd.grad((approximation(x) ** 3).sum(), x)[0].double() for x in (a, low)]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-3)


def test_batches_and_functional_transformations_agree() -> None:
    x = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def low(a: Tensor) -> Tensor:
        u, s, vh = left_svd(a, 2)
        return (u * s[..., None, :2]) @ vh

    assert gradcheck(low, x.clone().requires_grad_(), check_forward_ad=True, fast_mode=True)
    batch = torch.func.vmap(torch.func.grad(lambda a: low(a).sum()))(x)
    single = torch.stack([torch.func.grad(lambda a: low(a).sum())(a) for a in x])
    torch.testing.assert_close(batch, single)
    torch.testing.assert_close(torch.func.jacrev(low)(x[0]), torch.func.jacfwd(low)(x[0]))


METHODS: list[Method[Any]] = [HOSVD(), STHOSVD(), TTSVD()]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_methods_have_gradients_where_singular_values_coincide(method: Method[Any]) -> None:
    x = torch.zeros(4, 4, 4, dtype=torch.float64)
    for k in range(4):
        x[k, k, k] = (3.0, 3.0, 1.0, 0.5)[k]
    x = x + 1e-12 * torch.randn(4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert gradcheck(lambda x: method.fit(x, 2).value.dense(), x.requires_grad_(), fast_mode=True)


def test_a_low_rank_matrix_has_a_gradient_at_a_rank_above_its_own() -> None:
    a = matrix((5, 4), (3.0, 0.0, 0.0, 0.0))
    (gradient,) = torch.autograd.grad(TruncatedSVD().fit(a, 3).value.dense().sum(), a)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize(
    "method",
    [RandomizedSVD(), RandomizedHOSVD(oversampling=2), RandomizedTTSVD(oversampling=2)],
    ids=lambda m: type(m).__name__,
)
def test_randomised_methods_have_the_gradient_of_a_matrix_that_has_the_rank(method: Method[Any]) -> None:
    a = matrix((20, 18), (3.0, 1.0, *[0.0] * 16))
    weights = torch.randn(20, 18, dtype=torch.float64)
    value = method.fit(a, 2, generator=0).value.dense()
    (gradient,) = torch.autograd.grad((value * weights).sum(), a)
    u, _, vh = torch.linalg.svd(a.detach())
    left, right = u[:, :2] @ u[:, :2].T, vh[:2].T @ vh[:2]
    tangent = left @ weights + weights @ right - left @ weights @ right
    torch.testing.assert_close(gradient, tangent, atol=1e-8, rtol=0.0)


def test_equal_slices_have_a_gradient() -> None:
    one = matrix((4, 3), (2.0, 2.0, 1.0)).detach()
    x = torch.stack([one, one], dim=1).requires_grad_()
    assert gradcheck(lambda x: SlicedSVD().fit(x, 2).value.dense(), x, fast_mode=True)


def test_a_singular_system_has_a_gradient() -> None:
    a = matrix((3, 2), (2.0, 1.0))

    def solution(a: Tensor) -> Tensor:
        wide = torch.cat([a, a], dim=1)
        return solve_psd(wide.mT @ wide, wide.mT @ torch.ones(3, 1, dtype=a.dtype))

    assert gradcheck(solution, a)


@pytest.mark.parametrize("spectrum", ["apart", "equal", "nearly equal"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_jax_has_the_same_derivatives(dtype: str, spectrum: str) -> None:
    jax = pytest.importorskip("jax")
    test_util = pytest.importorskip("jax.test_util")
    a = matrix((5, 4), SPECTRA[spectrum], getattr(torch, dtype))
    function: Callable[[Any], Any] = jax.jit(lambda x: (lambda u, s, vh: (u * s) @ vh)(*truncated_svd(x, 2)))
    x = LIBRARIES.array("jax", a.detach().numpy())
    order = 2 if (spectrum, dtype) == ("apart", "float64") else 1
    test_util.check_grads(function, (x,), order=order, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(function(x), approximation(a).detach(), atol=1e-12)
