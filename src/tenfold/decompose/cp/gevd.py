"""CP of exact low rank without iteration, from the eigenvectors of a matrix pencil."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Num

from tenfold.algebra import mode_dot, mttkrp, squared_residual
from tenfold.core.arrays import Array, adjoint, conjugate, namespace
from tenfold.core.eigen import eigenbasis
from tenfold.core.errors import UnsupportedError
from tenfold.core.leading import leading
from tenfold.core.linalg import solve_psd
from tenfold.core.noise import normal
from tenfold.decompose.base import number
from tenfold.decompose.cp.grams import balanced, gram, hadamard

PENCILS = 5
"""How many pencils to try; the best counts, as each loses digits of its own."""
POWER_STEPS = 6


def gevd(tensor: Num[Array, "*shape"], rank: int, generator: Any) -> list[Num[Array, "_ r"]] | None:
    """The factors of a tensor of CP rank `rank`, if two of its modes are at least as long; None otherwise.

    Slices over these two modes, X_k = A diag(c_k) Bᵀ, share the eigenvectors of X_k X_l⁻¹, which are the
    columns of A. The tensor is first projected on its R leading directions in both modes, and instead of two
    slices it takes two combinations of all: the leading two, and random ones. With A, the tensor falls into
    rank-one terms, of which the other vectors are read off; A itself is improved by least squares.

    Exact up to a few digits where the rank is R, and no more than a start under noise or where the pencil
    has complex eigenvalues though the tensor is real; pencils lose digits without bound for some tensors
    (Beltrán, Breiding & Vannieuwenhoven 2019, arXiv:1807.04159). None also for fewer than two directions
    beside the two modes, and in libraries without eigenvectors of general matrices.

    Source: Sanchez & Kowalski 1990; Leurgans, Ross & Abel 1993.

    >>> import numpy as np
    >>> from tenfold.formats import CP
    >>> x = CP.random((5, 6, 3), 4, like=np.zeros(()), generator=0).dense()
    >>> found = CP(tuple(gevd(x, 4, 0)))
    >>> bool(np.linalg.norm(x - found.dense()) < 1e-10 * np.linalg.norm(x))
    True
    """
    xp, shape = namespace(tensor), tuple(tensor.shape)
    order = sorted(range(tensor.ndim), key=lambda k: -shape[k])
    if tensor.ndim < 3 or shape[order[1]] < rank or math.prod(shape) < 2 * shape[order[0]] * shape[order[1]]:
        return None
    turned = xp.permute_dims(tensor, tuple(order))
    bases = [leading(turned, mode, rank)[0] for mode in (0, 1)]
    core = mode_dot(mode_dot(turned, adjoint(bases[0]), 0), adjoint(bases[1]), 1)
    core = xp.reshape(xp.reshape(core, (-1,)), core.shape)  # in the order of its modes, for all that follows
    found = _best(core, generator)
    if found is None:
        return None
    factors = [bases[0] @ found[0], bases[1] @ found[1], *found[2:]]
    factors[0] = least_squares(turned, factors, 0)
    back = sorted(range(tensor.ndim), key=lambda k: order[k])
    return balanced([factors[k] for k in back])


def _best(core: Num[Array, "r r *rest"], generator: Any) -> list[Num[Array, "_ r"]] | None:
    """The factors by the pencil with the least error."""
    best, least = None, math.inf
    for pencil in _pencils(core, generator):
        factors = _by_pencil(core, pencil, generator)
        error = math.inf if factors is None else number(squared_residual(core, factors))
        best, least = (factors, error) if error < least else (best, least)
    return best


def _pencils(core: Num[Array, "r r *rest"], generator: Any) -> Iterator[tuple[Array, Array]]:
    """Pairs of combinations of the slices: about the two that hold most, then random ones."""
    xp, rank = namespace(core), core.shape[0]
    slices = xp.reshape(core, (rank * rank, -1))
    for n in range(PENCILS if slices.shape[1] > 2 else 1):
        mixture = normal((slices.shape[1], 2), like=core, generator=generator)
        for _ in range(POWER_STEPS if n == 0 else 0):
            mixture, _ = xp.linalg.qr(adjoint(slices) @ (slices @ mixture))
        pair = slices @ mixture
        yield xp.reshape(pair[:, 0], (rank, rank)), xp.reshape(pair[:, 1], (rank, rank))


def _by_pencil(
    core: Num[Array, "r r *rest"], pencil: tuple[Array, Array], generator: Any
) -> list[Num[Array, "_ r"]] | None:
    """The factors from the eigenvectors of S T⁻¹, which are the first one's columns."""
    xp, (above, below) = namespace(core), pencil
    try:
        vectors = eigenbasis(above @ xp.linalg.pinv(below))
        inverse = xp.linalg.pinv(vectors)
    except (UnsupportedError, np.linalg.LinAlgError, torch.linalg.LinAlgError):
        return None
    terms = xp.reshape(inverse @ xp.reshape(core, (core.shape[0], -1)), core.shape)
    factors = [vectors, *(v.T for v in rank_one(terms, generator))]
    factors[0] = least_squares(core, factors, 0)
    return factors


def rank_one(terms: Num[Array, "r *shape"], generator: Any) -> list[Num[Array, "r _"]]:
    """For each of a stack of tensors the vectors of a rank-one approximation, by a few power steps.

    >>> import numpy as np
    >>> vectors = rank_one(np.ones((2, 3, 4)), 0)
    >>> [v.shape for v in vectors], np.allclose(vectors[0][:, :, None] * vectors[1][:, None, :], 1.0)
    ([(2, 3), (2, 4)], True)
    """
    xp, (count, size, *rest) = namespace(terms), terms.shape
    if not rest:
        return [terms]
    matrices = xp.reshape(terms, (count, size, -1))
    adjoints = adjoint(matrices)
    right = adjoints @ normal((count, size, 1), like=terms, generator=generator)
    for _ in range(POWER_STEPS):
        left = _unit(matrices @ right)
        right = adjoints @ left
    others = rank_one(xp.reshape(conjugate(right), (count, *rest)), generator)
    return [left[:, :, 0], *others]


def _unit(vectors: Num[Array, "r n 1"]) -> Num[Array, "r n 1"]:
    length = namespace(vectors).linalg.vector_norm(vectors, axis=1, keepdims=True)
    return vectors / namespace(length).where(length > 0, length, namespace(length).ones_like(length))


def least_squares(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], mode: int
) -> Num[Array, "i r"]:
    """The best factor of a mode for the others as they are."""
    grams = [gram(f) for f in factors]
    gamma = hadamard(grams[:mode] + grams[mode + 1 :], like=grams[mode])
    return solve_psd(gamma, mttkrp(tensor, [conjugate(f) for f in factors], mode).T).T
