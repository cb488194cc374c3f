"""The leading singular vectors and eigenvectors as functions with a derivative that stays finite.

For A = U diag(s) Vᴴ, the first r columns of U move under dA, with P = Uᴴ dA V, by

    du_j = Σ_i≠j u_i (P_ij s_j + s_i conj P_ji) F_ij + (I - U Uᴴ) dA v_j / s_j,    F_ij = 1 / (s_j² - s_i²)

in which i runs over *all* singular vectors: what rotates out of the kept space into the discarded one is the
part that matters for a truncated approximation. Only the left vectors are differentiated. The right ones
follow from them as vᵢ = Aᴴ uᵢ / sᵢ, so that in U diag(s) Vᴴ = U Uᴴ A nothing depends on the choice of a basis
*within* the kept space. The gradient of whatever depends on that space alone is then right also where kept
values coincide: the terms F_ij of kept pairs cancel, and are only to be kept from dividing rounding errors by
zero (F becomes x / (x² + η²), as Liao et al. have it, with η relative to the pair). No term for the phase is
needed for complex matrices either (Wan & Zhang), as no left and right vector are varied on their own.

Where a kept and a discarded value coincide, there is no derivative; what comes is finite.

Source: Townsend, 'Differentiating the singular value decomposition', 2016; Liao, Liu, Wang & Xiang 2019,
arXiv:1903.09650; Wan & Zhang 2019, arXiv:1909.02659.
"""

import importlib
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch.autograd import forward_ad

from tenfold.core.arrays import Array, adjoint, constant, epsilon, is_complex, is_traced, namespace

Triple = tuple[Float[Array, "*b m r"], Float[Array, "*b k"], Float[Array, "*b r n"]]
Pair = tuple[Float[Array, "*b n r"], Float[Array, "*b n"]]


def needs_gradient(x: Array) -> bool:
    """Whether a derivative with respect to `x` may be asked for: if so, its SVD comes from here.

    >>> needs_gradient(torch.ones(2)), needs_gradient(torch.ones(2, requires_grad=True))
    (False, True)
    """
    if isinstance(x, torch.Tensor):
        wanted = x.requires_grad and torch.is_grad_enabled()
        return wanted or forward_ad.unpack_dual(x).tangent is not None
    return is_traced(x)


def left_svd(a: Float[Array, "*b m n"], rank: int) -> Triple:
    """The first `rank` left singular vectors, all singular values, and the first `rank` right vectors.

    Differentiable any number of times, backward and forward, in PyTorch and JAX; in other libraries it is
    just the SVD. Signs and phases are those of the library: `fix_signs` fixes them.

    >>> x = torch.eye(3, dtype=torch.float64, requires_grad=True)  # three equal singular values
    >>> u, s, vh = left_svd(x, 3)
    >>> torch.autograd.grad(((u * s) @ vh)[0, 1], x)[0].tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if not needs_gradient(a):
        u, s, vh = namespace(a).linalg.svd(a, full_matrices=False)
        return u[..., :rank], s, vh[..., :rank, :]
    if isinstance(a, torch.Tensor):
        u, s, fixed = _TorchSVD.apply(a, rank)
        u, fixed = u[..., :rank], fixed[..., :rank, :]
    else:
        u, s, fixed = _jax_svd()(a, rank)
    right = _right(a, u, s[..., :rank])
    return u, s, constant(fixed) + (right - constant(right))


def leading_eigh(h: Float[Array, "*b n n"], rank: int) -> Pair:
    """The eigenvectors of the `rank` largest eigenvalues of a Hermitian matrix, and all eigenvalues, largest
    first. Differentiable as `left_svd` is.

    >>> import numpy as np
    >>> leading_eigh(np.diag([1.0, 3.0, 2.0]), 1)[1]
    array([3., 2., 1.])
    """
    if not needs_gradient(h):
        vectors, values = _descending(h)
    elif isinstance(h, torch.Tensor):
        vectors, values = _TorchEigh.apply(h, rank)
    else:
        vectors, values = _jax_eigh()(h, rank)
    return vectors[..., :rank], values


def _right(a: Array, u: Array, s: Array) -> Array:
    """Aᴴ uᵢ / sᵢ as rows; zero where the singular value is."""
    xp = namespace(a)
    kept = s > _floor(s, a.shape[-2] + a.shape[-1])
    return _adjoint(u) @ a * xp.where(kept, 1.0 / xp.where(kept, s, 1.0), 0.0)[..., :, None]


def _adjoint(matrix: Array) -> Array:
    return (
        adjoint(matrix)
        if matrix.ndim == 2
        else namespace(matrix).conj(namespace(matrix).matrix_transpose(matrix))
    )


def _floor(values: Array, size: int) -> Array:
    """The rounding error of singular values or eigenvalues: about `size` eps times the largest."""
    return size * epsilon(values) * namespace(values).max(values, axis=-1, keepdims=True)


def _quotients(values: Array, rank: int, size: int) -> Array:
    """F_ij = 1 / (l_j - l_i) for values l, all i and the first `rank` j; finite, see above."""
    xp = namespace(values)
    kept, every = values[..., None, :rank], values[..., :, None]
    gap, near = kept - every, _floor(xp.abs(values), size)[..., None]
    pairs = epsilon(values) ** 0.5 * (xp.abs(kept) + xp.abs(every))
    inside = (xp.cumulative_sum(xp.ones_like(values), axis=-1) <= rank)[..., :, None]
    width = near + xp.where(inside, pairs, xp.zeros_like(pairs))
    there = xp.abs(gap) > 0
    return xp.where(there, gap / xp.where(there, gap * gap + width * width, 1.0), 0.0)


def _svd_quotients(a: Array, s: Array, rank: int) -> Array:
    """F_ij = 1 / (s_j² - s_i²) as 1 / (s_j - s_i) / (s_j + s_i)."""
    xp, size = namespace(s), a.shape[-2] + a.shape[-1]
    total = s[..., None, :rank] + s[..., :, None]
    return _quotients(s, rank, size) / xp.where(total > 0, total, 1.0)


def _inverse(a: Array, s: Array) -> Array:
    """1 / s, and 0 where that is rounding."""
    xp = namespace(s)
    kept = s > _floor(s, a.shape[-2] + a.shape[-1])
    return xp.where(kept, 1.0 / xp.where(kept, s, 1.0), 0.0)


def _pushed(a: Array, da: Array, svd: tuple[Array, Array, Array], rank: int) -> tuple[Array, Array]:
    """(du, ds) for da."""
    u, s, vh = svd
    p = _adjoint(u) @ da @ _adjoint(vh)
    turned = p[..., :, :rank] * s[..., None, :rank] + s[..., :, None] * _adjoint(p)[..., :, :rank]
    du = u @ (turned * _svd_quotients(a, s, rank))
    if a.shape[-2] > a.shape[-1]:
        side = da @ _adjoint(vh[..., :rank, :])
        du = du + (side - u @ (_adjoint(u) @ side)) * _inverse(a, s)[..., None, :rank]
    return du, _real_diagonal(p)


def _pulled(a: Array, gu: Array, gs: Array, svd: tuple[Array, Array, Array]) -> Array:
    """The gradient in a for those in u, of which there are as many columns as are kept, and in s: the adjoint
    of `_pushed`."""
    (u, s, vh), rank = svd, gu.shape[-1]
    w = _adjoint(u) @ gu
    t = w * _svd_quotients(a, s, rank)
    left = u @ (t * s[..., None, :rank])
    if a.shape[-2] > a.shape[-1]:
        left = left + (gu - u @ w) * _inverse(a, s)[..., None, :rank]
    rest = (u * gs[..., None, :]) @ vh + u[..., :, :rank] @ ((_adjoint(t) * s[..., None, :]) @ vh)
    return left @ vh[..., :rank, :] + rest


def _descending(h: Array) -> tuple[Array, Array]:
    """Eigenvectors and eigenvalues, largest first."""
    xp = namespace(h)
    values, vectors = xp.linalg.eigh(h)
    return xp.flip(vectors, axis=-1), xp.flip(values, axis=-1)


def _pulled_eigh(gv: Array, gl: Array, vectors: Array, values: Array) -> Array:
    """The gradient in h for those in the kept vectors and in all values: the adjoint of `_pushed_eigh`."""
    rank = gv.shape[-1]
    t = (_adjoint(vectors) @ gv) * _quotients(values, rank, values.shape[-1])
    return (vectors @ t) @ _adjoint(vectors[..., :, :rank]) + (vectors * gl[..., None, :]) @ _adjoint(vectors)


def _pushed_eigh(dh: Array, vectors: Array, values: Array, rank: int) -> tuple[Array, Array]:
    """(dv, dl) for dh."""
    p = _adjoint(vectors) @ dh @ vectors
    dv = vectors @ (p[..., :, :rank] * _quotients(values, rank, values.shape[-1]))
    return dv, _real_diagonal(p)


def _real_diagonal(matrix: Array) -> Array:
    xp = namespace(matrix)
    diagonal = xp.linalg.diagonal(matrix)
    return xp.real(diagonal) if is_complex(matrix) else diagonal


# PyTorch ----------------------------------------------------------------------------------------------------


class _TorchSVD(torch.autograd.Function):
    """All of the SVD, of which only the first `rank` left vectors and the values have a derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: torch.Tensor, rank: int) -> tuple[torch.Tensor, ...]:
        return tuple(torch.linalg.svd(a, full_matrices=False))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        a, ctx.rank = inputs
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(a, *output)
        ctx.save_for_forward(a, *output)

    @staticmethod
    def backward(ctx: Any, gu: torch.Tensor, gs: torch.Tensor, _: Any) -> Any:
        a, u, s, vh = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is itself differentiated
            u, s, vh = left_svd(a, s.shape[-1])
        return _pulled(a, gu[..., : ctx.rank], gs, (u, s, vh)), None

    @staticmethod
    def jvp(ctx: Any, da: torch.Tensor, _: Any) -> Any:
        a, *svd = ctx.saved_tensors
        du, ds = _pushed(a, da, tuple(svd), ctx.rank)
        return _padded(du, svd[0]), ds, None


class _TorchEigh(torch.autograd.Function):
    """All eigenvectors, of which only the first `rank` have a derivative, and all eigenvalues."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h: torch.Tensor, rank: int) -> tuple[torch.Tensor, ...]:
        return _descending(h)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        h, ctx.rank = inputs
        ctx.save_for_backward(h, *output)
        ctx.save_for_forward(h, *output)

    @staticmethod
    def backward(ctx: Any, gv: torch.Tensor, gl: torch.Tensor) -> Any:
        h, vectors, values = ctx.saved_tensors
        if torch.is_grad_enabled():
            vectors, values = leading_eigh(h, values.shape[-1])
        return _pulled_eigh(gv[..., : ctx.rank], gl, vectors, values), None

    @staticmethod
    def jvp(ctx: Any, dh: torch.Tensor, _: Any) -> Any:
        _, vectors, values = ctx.saved_tensors
        dv, dl = _pushed_eigh(dh, vectors, values, ctx.rank)
        return _padded(dv, vectors), dl


def _padded(columns: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Columns of zeros behind those given."""
    return torch.cat([columns, torch.zeros_like(like[..., columns.shape[-1] :])], dim=-1)


# JAX --------------------------------------------------------------------------------------------------------


@cache
def _jax_svd() -> Any:
    jax = importlib.import_module("jax")

    @partial(jax.custom_jvp, nondiff_argnums=(1,))
    def svd(a: Array, rank: int) -> Triple:
        u, s, vh = jax.numpy.linalg.svd(a, full_matrices=False)
        return u[..., :rank], s, vh[..., :rank, :]

    @svd.defjvp
    def derivative(rank: int, primals: Any, tangents: Any) -> Any:
        u, s, vh = jax.numpy.linalg.svd(*primals, full_matrices=False)
        du, ds = _pushed(primals[0], tangents[0], (u, s, vh), rank)
        right = vh[..., :rank, :]
        return (u[..., :rank], s, right), (du, ds, jax.numpy.zeros_like(right))

    return svd


@cache
def _jax_eigh() -> Any:
    jax = importlib.import_module("jax")

    @partial(jax.custom_jvp, nondiff_argnums=(1,))
    def eigh(h: Array, rank: int) -> Pair:
        vectors, values = _descending(h)
        return vectors[..., :rank], values

    @eigh.defjvp
    def derivative(rank: int, primals: Any, tangents: Any) -> Any:
        vectors, values = _descending(*primals)
        return (vectors[..., :rank], values), _pushed_eigh(tangents[0], vectors, values, rank)

    return eigh
