"""How the factors of a fit to listed entries depend on the entries, without unrolling the iteration.

At a minimum z the gradient Jᴴ (M(z) - t) stays 0, so that z moves with the entries t by (JᴴJ)⁺ Jᴴ dt; the
part of the Hessian that comes from the residual is left out, as Gauss and Newton do.
"""

from typing import Any

import torch
from jaxtyping import Num

from tenfold.core.arrays import Array
from tenfold.core.svd_gradient import needs_gradient
from tenfold.decompose.entries.observed import Problem
from tenfold.decompose.local_problem import Point, conjugate_gradients

STEPS = 100
"""Most conjugate gradients."""


def attached(problem: Problem, point: Point, values: Num[Array, " n"]) -> Point:
    """The point, with the derivative that it has as the best fit to `values`."""
    if not needs_gradient(values) or not isinstance(values, torch.Tensor):
        return point
    return tuple(_Minimum.apply(problem, values, *point))


class _Minimum(torch.autograd.Function):
    """The point, with J (JᴴJ)⁺ as the way back."""

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, values: torch.Tensor, *point: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Copies of the factors."""
        ctx.problem = problem
        ctx.save_for_backward(*point)
        return tuple(z.clone() for z in point)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *weights: torch.Tensor) -> tuple[Any, ...]:
        """The weights on the entries; none on the factors, which are constants."""
        point = ctx.saved_tensors
        here = ctx.problem(point)
        direction = conjugate_gradients(here, weights, 0.0, STEPS, 1e-10)
        return None, here.jacobian(direction), *(None for _ in point)
