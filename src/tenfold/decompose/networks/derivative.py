"""The derivative of the best fit of a network with respect to the tensor, without unrolling the iteration.

At a minimum F of f(F, T) = ½‖M(F) - T‖² the gradient stays 0, so that F moves with T by dF = H⁺ Jᴴ dT, with
the Hessian H = JᴴJ + S, where S comes from the residual. A change of the loss with weights v on F hence has
weights J H⁺ v on T. Along the directions that change factors but not M, H is zero; the part of v along them
is left out, as the fit may drift there as it likes.
"""

import importlib
from functools import cache
from typing import Any

import torch
from jaxtyping import Num

from tenfold.core.arrays import Array, epsilon
from tenfold.core.network import Network
from tenfold.core.svd_gradient import needs_gradient
from tenfold.decompose.local_problem import Local, added, conjugate_gradients, scaled, size
from tenfold.decompose.networks.double_layer import conjugates
from tenfold.decompose.networks.factor_problem import Gradients, refolded
from tenfold.decompose.networks.gauge import Factors
from tenfold.decompose.networks.general import dense
from tenfold.decompose.networks.residual import NetworkResidual

STEPS = 300
"""Most conjugate gradients for H⁺ v."""

POLISHING = 3
"""Most Newton steps towards the minimum."""


def attached(tensor: Num[Array, "*shape"], network: Network, factors: Factors) -> Factors:
    """The factors, with the derivative that they have as the best fit of the tensor.

    Right for what depends on the represented tensor, where that is a strict minimum; elsewhere what comes is
    finite. Costs nothing but where a derivative is asked for.

    >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    >>> root = torch.tensor([[3.0**0.5], [0.0]], dtype=torch.float64)
    >>> product = Network((("m0", "R"), ("R", "m1")), ("m0", "m1"), (("m0", 2), ("m1", 2), ("R", 1)))
    >>> a, b = attached(x, product, (root, root.T))
    >>> torch.autograd.grad((a @ b).sum(), x)[0].round(decimals=6)  # dσ uvᵀ + σ (du vᵀ + u dvᵀ)
    tensor([[1.0000, 1.5000],
            [1.5000, 0.0000]], dtype=torch.float64)
    """
    if not needs_gradient(tensor):
        return factors
    if isinstance(tensor, torch.Tensor):
        return tuple(_TorchMinimum.apply(network, tensor, *factors))
    return tuple(_jax_minimum()(network, tensor, factors))


def pulled(network: Network, tensor: Array, factors: Factors, weights: Factors) -> Array:
    """J H⁺ v: how a loss depends on the tensor that depends on the factors with weights v."""
    here = polished(Curved(tensor, network, factors))
    direction = conjugate_gradients(here, across(here, weights), 0.0, STEPS, 1e-12)
    factors = here.point
    moved = [(*factors[:k], x, *factors[k + 1 :]) for k, x in enumerate(direction)]
    return sum((dense(network, m) for m in moved[1:]), start=dense(network, moved[0]))


class Flat(NetworkResidual):
    """JᴴJ alone, without its preconditioner."""

    def precondition(self, residual: Factors, shift: float) -> Factors:
        """Nothing: so conjugate gradients stay orthogonal to what JᴴJ does not see."""
        return residual


class Curved(Flat):
    """A minimum with its Hessian in the place of JᴴJ; real-linear only, where the factors are complex."""

    def gram(self, direction: Factors) -> Factors:
        """JᴴJ x, and environments in the residual with each other factor in turn replaced by its x."""
        result = super().gram(direction)
        for k, x in enumerate(direction):
            environments = Gradients(self.residual, self.network, (*self.point[:k], x, *self.point[k + 1 :]))
            rest = tuple(
                0 * f if n == k else refolded(self.network, n, environments(n))
                for n, f in enumerate(self.point)
            )
            result = added(result, rest, 1.0)
        return result

    def settled(self) -> Local:  # type: ignore[override]
        """As it is."""
        return self


def polished(here: Curved) -> Curved:
    """The minimum to more digits, by Newton steps as long as they make the gradient smaller.

    Where the gradient is not zero, H is not zero along the directions that leave M as it is.
    """
    enough = 100 * epsilon(here.tensor) * size((here.tensor,)) * size(here.point)
    for _ in range(POLISHING):
        if size(here.gradient) <= enough:
            break
        step = conjugate_gradients(here, scaled(here.gradient, -1.0), 0.0, STEPS, 1e-10)
        there = Curved(here.tensor, here.network, added(here.point, step, 1.0))
        if not size(there.gradient) < size(here.gradient):
            break
        here = there
    return here


def across(here: NetworkResidual, weights: Factors) -> Factors:
    """The part of the weights that JᴴJ sees: (JᴴJ)⁺ JᴴJ v."""
    flat = Flat(here.tensor, here.network, here.point)
    return conjugate_gradients(flat, flat.gram(weights), 0.0, STEPS, 1e-13)


class _TorchMinimum(torch.autograd.Function):
    """The factors, with `pulled` as the way back."""

    @staticmethod
    def forward(
        ctx: Any, network: Network, tensor: torch.Tensor, *factors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Copies of the factors."""
        ctx.network = network
        ctx.save_for_backward(tensor, *factors)
        return tuple(f.clone() for f in factors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *weights: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The weights on the tensor; none on the factors, which are constants."""
        tensor, *factors = ctx.saved_tensors
        return None, pulled(ctx.network, tensor, tuple(factors), weights), *(None for _ in factors)


@cache
def _jax_minimum() -> Any:
    jax = importlib.import_module("jax")

    def minimum(network: Network, tensor: Array, factors: Factors) -> Factors:
        return factors

    def forward(network: Network, tensor: Array, factors: Factors) -> Any:
        return factors, (tensor, factors)

    def backward(network: Network, kept: Any, weights: Factors) -> Any:
        tensor, factors = kept
        back = pulled(network, tensor, factors, conjugates(tuple(weights)))
        return conjugates((back,))[0], scaled(factors, 0.0)

    found = jax.custom_vjp(minimum, nondiff_argnums=(0,))
    found.defvjp(forward, backward)
    return found
