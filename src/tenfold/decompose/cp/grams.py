"""Small algebra that the algorithms of CP share: Gram matrices, their Hadamard products, scaling, errors."""

import math
from collections.abc import Sequence

from jaxtyping import Float, Num

from tenfold.algebra import squared_residual
from tenfold.core.arrays import Array, adjoint, conjugate, epsilon, namespace, root
from tenfold.core.pieces import frobenius
from tenfold.decompose.base import number, relative


def gram(factor: Num[Array, "i r"]) -> Num[Array, "r r"]:
    """Aᴴ A."""
    return adjoint(factor) @ factor


def hadamard(matrices: Sequence[Array], like: Array) -> Array:
    """The elementwise product; ones where there is no matrix."""
    return math.prod(matrices[1:], start=matrices[0]) if matrices else namespace(like).ones_like(like)


def balanced(factors: Sequence[Num[Array, "_ r"]]) -> list[Num[Array, "_ r"]]:
    """The same components, with their norms spread evenly over their vectors."""
    return [f * scale for f, scale in zip(factors, even_scales(factors), strict=True)]


def even_scales(factors: Sequence[Num[Array, "_ r"]]) -> list[Float[Array, " r"]]:
    """For each factor, by what to multiply its columns to spread the norms of the components evenly.

    Their product over the factors is 1. Components of norm 0 stay as they are.
    """
    xp = namespace(*factors)
    norms = [xp.linalg.vector_norm(f, axis=0) for f in factors]
    there = math.prod(norms) > 0
    safe = [xp.where(there, n, xp.ones_like(n)) for n in norms]
    size = math.prod(n ** (1 / len(factors)) for n in safe)
    return [size / n for n in safe]


def component_norms(factors: Sequence[Num[Array, "_ r"]]) -> Float[Array, " r"]:
    """The norm of each rank-one term."""
    return math.prod(namespace(f).linalg.vector_norm(f, axis=0) for f in factors)


def square_by_parts(
    projected: Num[Array, "i r"], factor: Num[Array, "i r"], grams: Sequence[Array], whole: float
) -> float:
    """‖X - M‖² from ‖X‖² - 2 Re⟨X, M⟩ + ‖M‖², with the MTTKRP of one factor; see `cancels`."""
    xp = namespace(factor)
    cross = number(xp.sum(projected * conjugate(factor)))
    return whole**2 - 2 * cross + number(xp.sum(hadamard(grams, like=grams[0])))


def cancels(square: float, tensor: Array, whole: float) -> bool:
    """Whether `square_by_parts` has lost so many digits that the residual must be formed."""
    return square <= 100 * epsilon(tensor) ** 0.5 * whole**2


def residual_norm(tensor: Array, factors: Sequence[Num[Array, "_ r"]]) -> float:
    """‖X - M‖ from the residual; a traced array for a traced tensor."""
    return number(root(squared_residual(tensor, factors)))


def true_error(tensor: Array, factors: Sequence[Num[Array, "_ r"]]) -> float:
    """‖X - M‖ / ‖X‖ from the residual."""
    return relative(residual_norm(tensor, factors), frobenius(tensor))
