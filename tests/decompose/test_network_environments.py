"""Environments, double layers, gauges and derivatives of networks equal what their definitions give."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.network import Network
from tenfold.core.program import merge
from tenfold.decompose import NetworkGN
from tenfold.decompose.gauss_newton import GaussNewton
from tenfold.decompose.networks import environments
from tenfold.decompose.networks.alternation import Alternation
from tenfold.decompose.networks.double_layer import DoubleLayer, conjugates
from tenfold.decompose.networks.environments import EXACT
from tenfold.decompose.networks.factor_problem import Designs, Gradients, Grams, columns, parts, refolded
from tenfold.decompose.networks.gauge import balanced, orthonormalised, shifted, tour
from tenfold.decompose.networks.general import dense, drawn
from tenfold.decompose.networks.residual import NetworkResidual, jacobian, problem
from tenfold.formats import Format, General, formats
from tenfold.formats.lattices import mera, peps
from tenfold.testing.compare import assert_equal

DTYPES = ["float64", "complex128"]
KINDS = ["cp", "tucker", "tt", "tr", "ht", "block_term", "sliced_lowrank", "kronecker"]
TREES = ["tucker", "tt", "ht", "kronecker", "lowrank"]


def sample(kind: str, dtype: str, seed: int = 0) -> Format:
    """A random tensor of a format; the shape is one that all formats hold, or nearly all."""
    shape = {"kronecker": (3, 2, 2, 4), "lowrank": (5, 4)}.get(kind, (4, 3, 5))
    return formats[kind].random(shape, 2, like=np.zeros((), dtype=dtype), generator=seed)


def lattices(dtype: str) -> list[Format]:
    like = np.zeros((), dtype=dtype)
    lone = General.random((4, 3), 2, like=like, generator=3, joined=(("m0", "A", "B"), ("m1", "A")))
    whole = formats["tucker"].random((4, 3, 5), (2, None, 2), like=like, generator=4)
    return [peps(2, 3, 2, 2, like=like, generator=1), mera(4, 2, 2, like=like, generator=2), lone, whole]


def every(dtype: str) -> list[Format]:
    return [*(sample(kind, dtype) for kind in KINDS), *lattices(dtype)]


def explicit_jacobian(value: Format) -> np.ndarray:
    """Column by column, from unit vectors."""
    found = []
    for k, f in enumerate(value.factors):
        for place in product(*(range(n) for n in f.shape)):
            unit = np.zeros_like(f)
            unit[place] = 1
            changed = [unit if n == k else g for n, g in enumerate(value.factors)]
            found.append(dense(value.network, tuple(changed)).reshape(-1))
    return np.stack(found, axis=1)


def vector(factors: Any) -> np.ndarray:
    return np.concatenate([f.reshape(-1) for f in factors])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_double_layer_and_the_jacobian_equal_the_explicit_ones(dtype: str) -> None:
    for value in every(dtype):
        explicit = explicit_jacobian(value)
        assert_equal(jacobian(value.network, value.factors), explicit, "the Jacobian")
        direction = drawn(value.dense(), value.network, 7)
        expected = explicit.conj().T @ (explicit @ vector(direction))
        layers = DoubleLayer(value.network, value.factors)
        for _ in range(2):
            assert_equal(vector(layers(direction)), expected, "JᴴJ")


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_and_grams_equal_those_of_the_design(dtype: str) -> None:
    for value in every(dtype):
        network, factors = value.network, value.factors
        tensor = np.random.default_rng(1).standard_normal(value.shape).astype(dtype)
        explicit = explicit_jacobian(value)
        slopes = explicit.conj().T @ tensor.reshape(-1)
        ends = np.cumsum([f.size for f in factors])
        gradients, grams, designs = (
            Gradients(tensor, network, factors),
            Grams(network, factors),
            Designs(network, factors),
        )
        for k, f in enumerate(factors):
            expected = slopes[ends[k] - f.size : ends[k]].reshape(f.shape)
            assert_equal(refolded(network, k, gradients(k)), expected, "an environment of the tensor")
            design = designs(k)
            assert_equal(grams(k), design.conj().transpose(0, 2, 1) @ design, "a Gram matrix")


def test_environments_follow_the_factors_as_they_are_renewed() -> None:
    rng = np.random.default_rng(0)
    for value in every("float64"):
        network, factors = value.network, list(value.factors)
        tensor = rng.standard_normal(value.shape)
        gradients, grams = Gradients(tensor, network, tuple(factors)), Grams(network, tuple(factors))
        for k in [*range(len(factors)), *reversed(range(len(factors)))]:
            fresh = Gradients(tensor, network, tuple(factors)), Grams(network, tuple(factors))
            assert_equal(gradients(k), fresh[0](k), "a shared environment")
            assert_equal(grams(k), fresh[1](k), "a shared Gram matrix")
            factors[k] = rng.standard_normal(factors[k].shape)
            gradients.put({k: factors[k]})
            grams.put({k: factors[k]})


def test_large_networks_go_by_the_order_of_opt_einsum() -> None:
    value = formats["tt"].random((2,) * (EXACT + 3), 2, like=np.zeros(()), generator=0)
    gradients = Gradients(value.dense(), value.network, value.factors)
    small = Designs(value.network, value.factors)
    for k in (0, 4, EXACT + 2):
        b = small(k)[0]
        modes = [m for m in value.network.modes if m in parts(value.network, k).rest]
        order = [value.network.modes.index(m) for m in modes]
        matrix = np.moveaxis(value.dense(), order, range(len(order))).reshape(b.shape[0], -1)
        assert_equal(gradients(k).reshape(b.shape[1], -1), b.T @ matrix, "an environment")


@pytest.mark.parametrize("kind, reads", [("tt", 3), ("tr", 2), ("tucker", 3), ("cp", 2)])
def test_a_sweep_reads_the_tensor_a_few_times(kind: str, reads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    value = formats[kind].random((9, 9, 9, 9), 2, like=np.zeros(()), generator=0)
    tensor = value.dense() + np.random.default_rng(0).standard_normal(value.shape)
    run = Alternation(tensor, value.network, drawn(tensor, value.network, 1))
    run.sweep()
    met = []

    def counted(step: Any, left: Any, right: Any, xp: Any) -> Any:
        met.append(left is tensor or right is tensor)
        return merge(step, left, right, xp)

    monkeypatch.setattr(environments, "merge", counted)
    run.sweep()
    assert 1 <= sum(met) <= reads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TREES)
def test_on_a_tree_all_factors_but_one_are_made_orthonormal(kind: str, dtype: str) -> None:
    value = sample(kind, dtype)
    moves = tour(value.network)
    assert moves is not None
    factors = orthonormalised(value.network, value.factors, moves)
    for move in moves:
        assert_equal(dense(value.network, factors), value.dense(), "a tensor with other factors")
        gram = Grams(value.network, factors)(move.source)[0]
        assert_equal(gram, np.eye(gram.shape[0]), "the Gram matrix of the others")
        factors = shifted(value.network, factors, move)


@pytest.mark.parametrize("kind", ["cp", "tr", "block_term", "sliced_lowrank"])
def test_networks_with_cycles_or_shared_axes_are_no_trees(kind: str) -> None:
    assert tour(sample(kind, "float64").network) is None


def test_separate_parts_are_no_tree() -> None:
    apart = Network(
        (("m0", "A"), ("m1", "A"), ("m2",)),
        ("m0", "m1", "m2"),
        tuple((a, 2) for a in ("m0", "m1", "m2", "A")),
    )
    assert tour(apart) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_balanced_factors_have_equal_norms_along_every_bond_of_cp(dtype: str) -> None:
    for value in every(dtype):
        factors = balanced(value.network, tuple(10.0 ** (k - 1) * f for k, f in enumerate(value.factors)))
        scale = np.prod([10.0 ** (k - 1) for k in range(len(factors))])
        assert_equal(dense(value.network, factors) / scale, value.dense(), "a balanced tensor")
        norms = [np.linalg.norm(f) for f in factors]
        np.testing.assert_allclose(norms, norms[0])
    norms = [np.linalg.norm(f, axis=0) for f in balanced(*_cp())]
    np.testing.assert_allclose(norms[0], norms[1])


def _cp() -> tuple[Network, tuple[np.ndarray, ...]]:
    value = sample("cp", "float64")
    return value.network, value.factors


def test_zero_factors_stay_zero_when_balanced() -> None:
    network, factors = _cp()
    assert all(np.all(f == 0) for f in balanced(network, tuple(0 * f for f in factors)))


def test_columns_and_refolded_are_inverse() -> None:
    for value in every("complex128"):
        for k, f in enumerate(value.factors):
            assert_equal(
                refolded(value.network, k, columns(value.network, k, f)), f, "a refolded factor", 0.0
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_value_gradient_and_solve_of_the_residual_agree_with_the_jacobian(dtype: str) -> None:
    for value in every(dtype):
        tensor = np.random.default_rng(3).standard_normal(value.shape).astype(dtype)
        near = NetworkResidual(tensor, value.network, value.factors)
        matrix, rest = explicit_jacobian(value), (value.dense() - tensor).reshape(-1)
        assert near.value == pytest.approx(0.5 * np.linalg.norm(rest) ** 2)
        assert_equal(vector(near.gradient), matrix.conj().T @ rest, "the gradient")
        step = near.solve(near.gradient, 0.0)
        assert step is not None
        expected = np.linalg.pinv(matrix, rcond=1e-7) @ rest
        assert_equal(vector(step), expected, "a Gauss–Newton step", 1e-6)


@pytest.mark.parametrize(
    "kind, ranks, dtype",
    [
        ("tt", 2, torch.complex128),
        ("tr", 2, torch.float64),
        ("tucker", 2, torch.float64),
        ("block_term", (2, 2, 2, 1), torch.float64),
        ("sliced_lowrank", 2, torch.complex128),
    ],
    ids=str,
)
def test_the_derivative_of_a_fit_equals_finite_differences(kind: str, ranks: Any, dtype: torch.dtype) -> None:
    x, weights, direction = (
        torch.randn((4, 3, 5), dtype=dtype, generator=torch.Generator().manual_seed(s)) for s in (1, 5, 3)
    )
    leaf = x.clone().requires_grad_()
    value = NetworkGN(kind, tol=1e-15, max_steps=2000).fit(leaf, ranks, generator=0).value
    start = tuple(f.detach() for f in value.factors)

    def loss(tensor: torch.Tensor) -> torch.Tensor:
        found = GaussNewton(tol=1e-15, max_steps=2000)(problem(tensor, value.network), start)
        return torch.real(dense(value.network, found.point) * weights).sum()

    (gradient,) = torch.autograd.grad(torch.real(value.dense() * weights).sum(), leaf)
    slope = float(torch.real(gradient.conj() * direction).sum())
    difference = loss(x + 1e-3 * direction) - loss(x - 1e-3 * direction)
    assert slope == pytest.approx(float(difference) / 2e-3, rel=1e-3, abs=1e-3)


def test_conjugates_of_real_factors_are_themselves() -> None:
    factor = np.ones(2)
    assert conjugates((factor,))[0] is factor
