"""The leading singular vectors and eigenvectors as functions with a derivative that stays finite.

Only the left vectors of A = U diag(s) Vᴴ are differentiated, by the formulas of `svd_perturbation`. The right
ones follow from them as vᵢ = Aᴴ uᵢ / sᵢ, so that in U diag(s) Vᴴ = U Uᴴ A nothing depends on the choice of a
basis *within* the kept space. No term for the phase is needed for complex matrices either (Wan & Zhang 2019,
arXiv:1909.02659), as no left and right vector are varied on their own.

Where a kept and a discarded value coincide, there is no derivative; what comes is finite.
"""

import importlib
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch.autograd import forward_ad

from tenfold.core.arrays import Array, constant, is_traced, namespace
from tenfold.core.svd_perturbation import (
    descending_eigh,
    pulled_eigh,
    pulled_svd,
    pushed_eigh,
    pushed_svd,
    right_vectors,
)

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
    right = right_vectors(a, u, s[..., :rank])
    return u, s, constant(fixed) + (right - constant(right))


def leading_eigh(h: Float[Array, "*b n n"], rank: int) -> Pair:
    """The eigenvectors of the `rank` largest eigenvalues of a Hermitian matrix, and all eigenvalues, largest
    first. Differentiable as `left_svd` is.

    >>> import numpy as np
    >>> leading_eigh(np.diag([1.0, 3.0, 2.0]), 1)[1]
    array([3., 2., 1.])
    """
    if not needs_gradient(h):
        vectors, values = descending_eigh(h)
    elif isinstance(h, torch.Tensor):
        vectors, values = _TorchEigh.apply(h, rank)
    else:
        vectors, values = _jax_eigh()(h, rank)
    return vectors[..., :rank], values


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
        return pulled_svd(a, gu[..., : ctx.rank], gs, (u, s, vh)), None

    @staticmethod
    def jvp(ctx: Any, da: torch.Tensor, _: Any) -> Any:
        a, *svd = ctx.saved_tensors
        du, ds = pushed_svd(a, da, tuple(svd), ctx.rank)
        return _padded(du, svd[0]), ds, None


class _TorchEigh(torch.autograd.Function):
    """All eigenvectors, of which only the first `rank` have a derivative, and all eigenvalues."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h: torch.Tensor, rank: int) -> tuple[torch.Tensor, ...]:
        return descending_eigh(h)

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
        return pulled_eigh(gv[..., : ctx.rank], gl, vectors, values), None

    @staticmethod
    def jvp(ctx: Any, dh: torch.Tensor, _: Any) -> Any:
        _, vectors, values = ctx.saved_tensors
        dv, dl = pushed_eigh(dh, vectors, values, ctx.rank)
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
        a, da = primals[0], tangents[0]
        u, s, vh = left_svd(a, min(a.shape[-2:]))  # which may be differentiated again
        du, ds = pushed_svd(a, da, (u, s, vh), rank)
        right = vh[..., :rank, :]
        return (u[..., :rank], s, right), (du, ds, jax.numpy.zeros_like(right))

    return svd


@cache
def _jax_eigh() -> Any:
    jax = importlib.import_module("jax")

    @partial(jax.custom_jvp, nondiff_argnums=(1,))
    def eigh(h: Array, rank: int) -> Pair:
        vectors, values = descending_eigh(h)
        return vectors[..., :rank], values

    @eigh.defjvp
    def derivative(rank: int, primals: Any, tangents: Any) -> Any:
        vectors, values = leading_eigh(primals[0], primals[0].shape[-1])
        return (vectors[..., :rank], values), pushed_eigh(tangents[0], vectors, values, rank)

    return eigh
