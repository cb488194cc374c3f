"""L-BFGS: known functions, and networks."""

import itertools
from typing import Any

import numpy as np
import pytest

from tenfold.decompose import NetworkALS, NetworkGN, NetworkGradient
from tenfold.decompose.local_problem import Local, Point
from tenfold.decompose.networks.lbfgs import LBFGS
from tenfold.testing import check_method


class Rosenbrock(Local):
    """Σ 100 (x_{k+1} - x_k²)² + (1 - x_k)², whose minimum is at ones; no scale but that of the function."""

    def __init__(self, point: Point) -> None:
        self.point = point

    @property
    def value(self) -> float:
        (x,) = self.point
        return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))

    @property
    def gradient(self) -> Point:
        (x,) = self.point
        inner = x[1:] - x[:-1] ** 2
        below = np.concatenate([-400 * x[:-1] * inner - 2 * (1 - x[:-1]), [0.0]])
        return (below + np.concatenate([[0.0], 200 * inner]),)

    def gram(self, direction: Point) -> Point:
        return direction


class Quadratic(Local):
    """½ Re⟨x, A x⟩ - Re⟨b, x⟩ + ½ Re⟨b, A⁻¹ b⟩ over the complex numbers."""

    matrix = np.array([[4.0, 1j], [-1j, 2.0]])
    right = np.array([1.0, 2j])

    def __init__(self, point: Point) -> None:
        self.point = point

    @property
    def value(self) -> float:
        rest = self.point[0] - np.linalg.solve(self.matrix, self.right)
        return 0.5 * float(np.real(rest.conj() @ self.matrix @ rest))

    @property
    def gradient(self) -> Point:
        return (self.matrix @ self.point[0] - self.right,)

    def gram(self, direction: Point) -> Point:
        return (self.matrix @ direction[0],)


@pytest.mark.parametrize("count", [2, 10])
def test_the_rosenbrock_function_is_minimised(count: int) -> None:
    found = LBFGS(tol=1e-14)(Rosenbrock, (np.full(count, -1.2) + 0.1 * np.arange(count),))
    assert found.converged and found.steps < 120
    np.testing.assert_allclose(found.point[0], 1.0, atol=1e-6)


def test_a_complex_quadratic_function_is_minimised() -> None:
    found = LBFGS(tol=1e-14)(Quadratic, (np.zeros(2, dtype=complex),))
    assert found.steps < 12
    np.testing.assert_allclose(found.point[0], np.linalg.solve(Quadratic.matrix, Quadratic.right), atol=1e-7)


def test_the_value_falls_at_every_step() -> None:
    trace = LBFGS(tol=1e-14)(Rosenbrock, (np.zeros(6),)).trace
    assert all(b < a for a, b in itertools.pairwise(trace))


def test_a_minimum_is_left_alone() -> None:
    found = LBFGS()(Rosenbrock, (np.ones(3),))
    assert found.converged and found.steps == 0


@pytest.mark.parametrize("kind", ["sliced_lowrank", "kronecker"])
def test_the_gradient_method_obeys_every_law_for_other_kinds(kind: str) -> None:
    check_method(NetworkGradient(kind, start="random"))


@pytest.mark.parametrize("kind", ["tr", "block_term"])
def test_all_three_methods_end_in_the_same_minimum_from_the_same_factors(kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 6))
    options: dict[str, Any] = {"start": "random", "trial_steps": 60}
    errors = [
        method(kind, tol=tol, max_steps=3000, **options).fit(x, 2, generator=5).error
        for method, tol in ((NetworkALS, 1e-10), (NetworkGN, 1e-12), (NetworkGradient, 1e-12))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    assert errors[0] == pytest.approx(errors[2], rel=1e-4)
