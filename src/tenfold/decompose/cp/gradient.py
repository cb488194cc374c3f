"""The derivative of the best CP approximation with respect to the tensor, without unrolling the iteration.

At a minimum z of f(z, T) = ½‖M(z) - T‖² the gradient stays 0, so that z moves with T by dz = H⁺ Jᴴ dT, with
the Hessian H = JᴴJ + S, where S comes from the residual. A change of the loss with weights v on z hence has
weights J H⁺ v on T. H is singular along the scalings within a component; of v, the part along them is left
out, which is the derivative of the factors that keep the norms of each component spread evenly.
"""

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Num

from tenfold.algebra import mttkrps
from tenfold.core.arrays import Array, conjugate, namespace
from tenfold.core.svd_gradient import needs_gradient
from tenfold.decompose.cp.local import CPLocal, CPProblem
from tenfold.decompose.local_problem import Point, added, conjugate_gradients
from tenfold.formats import CP

STEPS = 300
"""Most conjugate gradients for H⁺ v."""


def attached(tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]]) -> tuple[Array, ...]:
    """The factors, with the derivative that they have as the best approximation of the tensor.

    Right where the factors are a strict minimum but for scaling; elsewhere what comes is finite. Costs
    nothing but where a derivative is asked for: there, an MTTKRP for each pair of modes and each of as many
    conjugate gradients as it takes.

    >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    >>> root = torch.tensor([[3.0**0.5], [0.0]], dtype=torch.float64)
    >>> a, b = attached(x, (root, root))
    >>> torch.autograd.grad((a @ b.T).sum(), x)[0].round(decimals=6)  # dσ uvᵀ + σ (du vᵀ + u dvᵀ)
    tensor([[1.0000, 1.5000],
            [1.5000, 0.0000]], dtype=torch.float64)
    """
    if not needs_gradient(tensor):
        return tuple(factors)
    if isinstance(tensor, torch.Tensor):
        return tuple(_TorchMinimum.apply(tensor, *factors))
    return tuple(_jax_minimum()(tensor, tuple(factors)))


def pulled(tensor: Num[Array, "*shape"], factors: Point, weights: Point) -> Num[Array, "*shape"]:
    """J H⁺ v: how a loss depends on the tensor that depends on the factors with weights v."""
    here = Curved(CPProblem(tensor), factors)
    direction = conjugate_gradients(here, across(factors, weights), 0.0, STEPS, 1e-12)
    parts = [(*factors[:n], x, *factors[n + 1 :]) for n, x in enumerate(across(factors, direction))]
    return sum((CP(part).dense() for part in parts[1:]), start=CP(parts[0]).dense())


def across(factors: Point, direction: Point) -> Point:
    """The part of a direction that is orthogonal to the scalings and phases within a component.

    These add c_n u_n to the vectors u_n, with Σ c_n = 0; orthogonal to them is where ⟨u_n, x_n⟩ is the same
    for all n.
    """
    xp = namespace(*factors)
    squares = [xp.sum(conjugate(u) * u, axis=0) for u in factors]
    there = [xp.abs(s) > 0 for s in squares]
    safe = [xp.where(t, s, xp.ones_like(s)) for t, s in zip(there, squares, strict=True)]
    inner = [xp.sum(conjugate(u) * x, axis=0) for u, x in zip(factors, direction, strict=True)]
    mean = sum(a / s for a, s in zip(inner, safe, strict=True)) / sum(1 / s for s in safe)
    return tuple(x - u * ((a - mean) / s) for x, u, a, s in zip(direction, factors, inner, safe, strict=True))


class Curved(CPLocal):
    """A minimum with its Hessian in the place of JᴴJ; real-linear only, where the factors are complex."""

    def __init__(self, problem: CPProblem, point: Point) -> None:
        super().__init__(problem, point)
        self.residual = CP(point).dense() - problem.tensor

    def gram(self, direction: Point) -> Point:
        """JᴴJ X and, in mode n, MTTKRPs of the residual with each other factor in turn replaced by its X."""
        result = super().gram(direction)
        for k, x in enumerate(direction):
            moved = [conjugate(f) for f in (*self.point[:k], x, *self.point[k + 1 :])]
            products = mttkrps(self.residual, moved)
            rest = tuple(0 * p if n == k else p for n, p in enumerate(products))
            result = added(result, rest, 1.0)
        return result


class _TorchMinimum(torch.autograd.Function):
    """The factors, with `pulled` as the way back."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, *factors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Copies of the factors."""
        ctx.save_for_backward(tensor, *factors)
        return tuple(f.clone() for f in factors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *weights: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The weights on the tensor; none on the factors, which are constants."""
        tensor, *factors = ctx.saved_tensors
        return pulled(tensor, tuple(factors), weights), *(None for _ in factors)


@cache
def _jax_minimum() -> Any:
    jax = importlib.import_module("jax")

    @jax.custom_vjp
    def minimum(tensor: Array, factors: tuple[Array, ...]) -> tuple[Array, ...]:
        return factors

    def forward(tensor: Array, factors: tuple[Array, ...]) -> Any:
        return factors, (tensor, factors)

    def backward(kept: Any, weights: tuple[Array, ...]) -> Any:
        tensor, factors = kept
        back = pulled(tensor, factors, tuple(conjugate(w) for w in weights))
        return conjugate(back), tuple(0 * f for f in factors)

    minimum.defvjp(forward, backward)
    return minimum
