"""Gauss and Newton's method on problems whose answer is known."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import pytest
import torch

from tenfold.core.arrays import adjoint, namespace
from tenfold.core.errors import OptionError
from tenfold.decompose.gauss_newton import GaussNewton, dogleg, predicted_decrease
from tenfold.decompose.local_problem import Local, Point, conjugate_gradients, dot, size


class Explicit(Local):
    """A residual and its Jacobian, as functions of one vector."""

    def __init__(self, point: Point, residual: Callable, jacobian: Callable) -> None:
        self.point, self.residual, self.jacobian = point, residual(point[0]), jacobian(point[0])

    @cached_property
    def value(self) -> float:
        return dot((self.residual,), (self.residual,)) / 2

    @cached_property
    def gradient(self) -> Point:
        return (adjoint(self.jacobian) @ self.residual,)

    def gram(self, direction: Point) -> Point:
        return (adjoint(self.jacobian) @ (self.jacobian @ direction[0]),)


class Solved(Explicit):
    """The same with direct solutions."""

    def solve(self, target: Point, shift: float) -> Point:
        h = adjoint(self.jacobian) @ self.jacobian
        xp = namespace(h)
        return (xp.linalg.pinv(h + shift * xp.eye(h.shape[0], dtype=h.dtype)) @ target[0],)


def rosenbrock(x: np.ndarray) -> np.ndarray:
    return np.array([1 - x[0], 10 * (x[1] - x[0] ** 2)])


def rosenbrock_jacobian(x: np.ndarray) -> np.ndarray:
    return np.array([[-1.0, 0.0], [-20 * x[0], 10.0]])


@pytest.mark.parametrize("damped", [False, True])
@pytest.mark.parametrize("kind", [Explicit, Solved])
def test_rosenbrock_is_solved_exactly(kind: type[Explicit], damped: bool) -> None:
    found = GaussNewton(damped=damped)(
        lambda z: kind(z, rosenbrock, rosenbrock_jacobian), (np.array([-1.2, 1.0]),)
    )
    assert found.converged and found.steps < 60
    np.testing.assert_allclose(found.point[0], [1.0, 1.0], atol=1e-7)
    assert list(found.trace) == sorted(found.trace, reverse=True)


def curve(x: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, 12)
    return x[0] * np.exp(x[1] * t) - (2 * np.exp(-1.5 * t) + 0.1 * np.cos(9 * t))


def curve_jacobian(x: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, 12)
    return np.stack([np.exp(x[1] * t), x[0] * t * np.exp(x[1] * t)], axis=1)


@pytest.mark.parametrize("damped", [False, True])
def test_a_minimum_with_a_residual_has_no_gradient(damped: bool) -> None:
    found = GaussNewton(damped=damped)(lambda z: Explicit(z, curve, curve_jacobian), (np.array([1.0, 0.0]),))
    assert found.converged and found.local.value > 1e-3
    assert size(found.local.gradient) < 1e-4


@pytest.mark.parametrize("damped", [False, True])
@pytest.mark.parametrize("kind", [Explicit, Solved])
def test_complex_points_and_a_singular_jacobian_do_no_harm(kind: type[Explicit], damped: bool) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 4)) + 1j * rng.normal(size=(6, 4))
    a[:, 3] = a[:, 0]
    b = a @ np.array([1.0, 2j, -1.0, 1.0])
    found = GaussNewton(damped=damped)(lambda z: kind(z, lambda x: a @ x - b, lambda x: a), (0j * a[0],))
    assert found.converged
    np.testing.assert_allclose(a @ found.point[0], b, atol=1e-6)


def test_torch_and_numpy_take_the_same_steps() -> None:
    a = np.random.default_rng(1).normal(size=(5, 3))
    traces = []
    for x in (a, torch.asarray(a)):
        at = lambda z, x=x: Explicit(z, lambda p: x @ p**3 - x[:, 0], lambda p: 3 * x * p**2)  # noqa: E731
        traces.append(GaussNewton()(at, (0 * x[0] + 0.9,)).trace)
    np.testing.assert_allclose(traces[0], traces[1], rtol=1e-6, atol=1e-25)


class Quadratic(Local):
    """½ xᵀ H x - gᵀ x around 0."""

    def __init__(self, h: np.ndarray, g: np.ndarray) -> None:
        self.h, self.point, self.g = h, (0 * g,), g

    value = 0.0

    @property
    def gradient(self) -> Point:
        return (-self.g,)

    def gram(self, direction: Point) -> Point:
        return (self.h @ direction[0],)

    def precondition(self, residual: Point, shift: float) -> Point:
        return (residual[0] / (np.diag(self.h) + shift),)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_conjugate_gradients_end_after_as_many_steps_as_unknowns(shift: float) -> None:
    rng = np.random.default_rng(2)
    root, g = rng.normal(size=(7, 7)), rng.normal(size=7)
    h = root @ root.T + np.diag(np.arange(7.0))
    found = conjugate_gradients(Quadratic(h, g), (g,), shift, 7, 0.0)[0]
    np.testing.assert_allclose((h + shift * np.eye(7)) @ found, g, atol=1e-8)


def test_conjugate_gradients_stop_at_negative_curvature() -> None:
    h, g = np.diag([1.0, 1.0, -5.0]), np.array([1.0, 0.1, 0.1])
    local = Quadratic(h, g)
    local.precondition = lambda residual, shift: residual  # type: ignore[method-assign]
    found = conjugate_gradients(local, (g,), 0.0, 10, 0.0)
    assert predicted_decrease(local, found) > 0 and np.all(np.isfinite(found[0]))


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0, 1.5, 3.0])
def test_the_dogleg_ends_on_the_edge_of_the_region(radius: float) -> None:
    h, g = np.diag([1.0, 4.0]), np.array([1.0, 2.0])
    cauchy, newton = (g * (g @ g) / (g @ h @ g),), (np.linalg.solve(h, g),)
    step = dogleg(cauchy, newton, radius)
    assert size(step) == pytest.approx(min(radius, size(newton)))


@pytest.mark.parametrize(
    "options", [{"max_steps": 0}, {"tol": -1.0}, {"cg_steps": 0}, {"radius": 0.0}], ids=str
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        GaussNewton(**options)  # type: ignore[arg-type]
