"""Alternating least squares on a network: each factor in turn, all others as they are."""

import math

from tenfold.core.arrays import Array, device_of, epsilon, is_complex, namespace
from tenfold.core.network import Network
from tenfold.decompose.base import norm, relative
from tenfold.decompose.local_problem import inner
from tenfold.decompose.networks.factor_problem import (
    Designs,
    Gradients,
    Grams,
    arranged,
    columns,
    least_norm,
    refolded,
    solve_stack,
    underdetermined,
)
from tenfold.decompose.networks.gauge import Factors, balanced, orthonormalised, shifted, tour
from tenfold.decompose.networks.general import dense

BALANCED = 10
"""After so many sweeps norms are spread evenly, which costs the partial results that are at hand."""


class Alternation:
    """A run on its way: the factors, and the error after every sweep in `trace`.

    On a tree a sweep goes around and back, and QR factorisations keep all factors but the current one
    orthonormal; elsewhere it goes through the factors in order.

    >>> import numpy as np
    >>> network = Network((("m0", "R"), ("R", "m1")), ("m0", "m1"), (("m0", 2), ("m1", 2), ("R", 1)))
    >>> run = Alternation(np.diag([3.0, 4.0]), network, (np.ones((2, 1)), np.ones((1, 2))))
    >>> run.advance(1e-9, 50)
    >>> round(5 * run.error, 6)
    3.0
    """

    def __init__(self, tensor: Array, network: Network, factors: Factors, damping: float = 0.0) -> None:
        self.tensor, self.network, self.damping = tensor, network, damping
        self.whole = norm(tensor)
        self.trace: list[float] = []
        self.converged = self.whole == 0
        self.moves = tour(network) or ()
        factors = factors if self.whole else tuple(0 * f for f in factors)
        if self.moves:
            factors = orthonormalised(network, factors, self.moves)
        self.factors = balanced(network, factors) if not self.moves else factors
        self.gradients = Gradients(tensor, network, self.factors)
        self.grams = Grams(network, self.factors)
        self.designs = Designs(network, self.factors)
        self.orthonormal = bool(self.moves) or len(factors) == 1

    @property
    def error(self) -> float:
        """The relative error of the factors as they are."""
        if self.trace:
            return self.trace[-1]
        return relative(norm(self.tensor - dense(self.network, self.factors)), self.whole)

    def advance(self, tol: float, max_steps: int) -> None:
        """Sweep until a sweep changes the error by `tol` of it, or rounding, or `max_steps` are done."""
        while not self.converged and len(self.trace) < max_steps:
            self.sweep()
            before, now = (self.trace[-2] if self.trace[1:] else math.inf), self.trace[-1]
            self.converged = abs(before - now) <= max(tol * now, 4 * epsilon(self.tensor))

    def sweep(self) -> None:
        """Renew every factor: around the tree and back, or one after the other."""
        if self.moves:
            for move in self.moves:
                self._renew(move.source)
                self._put(shifted(self.network, self.factors, move))
            last = 0
            self._renew(last)
        else:
            if len(self.trace) % BALANCED == BALANCED - 1:
                self._put(balanced(self.network, self.factors))
            for k in range(len(self.factors)):
                self._renew(k)
            last = len(self.factors) - 1
        self.trace.append(relative(self._error(last), self.whole))

    def _put(self, factors: Factors) -> None:
        changed = {k: f for k, f in enumerate(factors) if f is not self.factors[k]}
        self.factors = factors
        for part in (self.gradients, self.grams, self.designs):
            part.put(changed)

    def _renew(self, k: int) -> None:
        new = refolded(self.network, k, self._solution(k))
        self._put(tuple(new if n == k else f for n, f in enumerate(self.factors)))

    def _solution(self, k: int) -> Array:
        """The factor as a stack of matrices (bonds, own)."""
        if not self.orthonormal and underdetermined(self.network, k):
            return least_norm(self.designs(k), arranged(self.network, k, self.tensor))
        old = columns(self.network, k, self.factors[k])
        gradient = namespace(old).reshape(self.gradients(k), old.shape)
        if self.orthonormal:
            return gradient
        gram = self.grams(k)
        return (
            solve_stack(*self._damped(gram, gradient, old)) if self.damping else solve_stack(gram, gradient)
        )

    def _damped(self, gram: Array, gradient: Array, old: Array) -> tuple[Array, Array]:
        xp, r = namespace(gram), gram.shape[-1]
        diagonal = xp.linalg.diagonal(gram)
        diagonal = xp.real(diagonal) if is_complex(gram) else diagonal
        step = self.damping * xp.mean(diagonal, axis=-1)[:, None, None]
        return gram + step * xp.eye(r, dtype=gram.dtype, device=device_of(gram)), gradient + step * old

    def _error(self, k: int) -> float:
        """‖T - M‖ from ‖T‖² - 2 Re⟨BᴴT, F⟩ + ⟨F, BᴴB F⟩, or from the residual where that would cancel."""
        if self.orthonormal:
            square = self.whole**2 - norm(self.factors[k]) ** 2
        elif underdetermined(self.network, k):
            square = 0.0
        else:
            factor = columns(self.network, k, self.factors[k])
            cross = inner(namespace(factor).reshape(self.gradients(k), factor.shape), factor)
            square = (
                self.whole**2 - 2 * cross + inner(factor, namespace(factor).matmul(self.grams(k), factor))
            )
        if square > 100 * epsilon(self.tensor) ** 0.5 * self.whole**2:
            return float(square**0.5)
        return norm(self.tensor - dense(self.network, self.factors))
