"""Methods of fixed steps under the transformations of JAX."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.algebra import (
    contract,
    khatri_rao,
    mode_dot,
    mttkrp,
    multi_mode_dot,
    residual_mttkrps,
    squared_residual,
    unfold,
)
from tenfold.core.errors import UnsupportedError
from tenfold.core.incomplete import Incomplete
from tenfold.core.linalg import orthonormalise, solve_psd
from tenfold.core.sparse import Sparse
from tenfold.core.svd_gradient import leading_eigh, left_svd
from tenfold.decompose import (
    CPALS,
    HOSVD,
    STHOSVD,
    TTSVD,
    CrossFit,
    Fit,
    KroneckerSVD,
    TruncatedSVD,
    TTCross,
    decompose_weighted,
    entries_of,
    matched,
    methods,
    root_of,
)
from tenfold.formats import CP, Rounded, TensorRing, TensorTrain, orthogonalised, rounded, rounded_randomly
from tenfold.testing.formats import SHAPES, holds
from tenfold.testing.libraries import LIBRARIES

jax = pytest.importorskip("jax")
jnp = jax.numpy
LIBRARIES["jax"]  # switches 64-bit numbers on

QUICK = ("svd", "st_hosvd", "tt_svd")
COMPILED_LONG = (
    *("randomized_svd", "sliced_svd", "kronecker_svd", "hosvd", "randomized_hosvd", "randomized_tt"),
    *("tr_svd", "ht_svd"),
)
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in COMPILED_LONG)]


def noise(name: str) -> Any:
    order = next(o for o in (3, 4, 2) if holds(methods[name]().format, o))
    return jnp.asarray(np.random.default_rng(0).standard_normal(SHAPES[order]))


@pytest.mark.parametrize("name", NAMES)
def test_jit_gives_what_the_method_gives(name: str) -> None:
    def fit(x: Any) -> Fit[Any]:
        return methods[name]().fit(x, 2, generator=0)

    x = noise(name)
    plain, compiled = fit(x), jax.jit(fit)(x)
    assert type(compiled.value) is type(plain.value) and compiled.value.ranks == plain.value.ranks
    np.testing.assert_allclose(compiled.value.dense(), plain.value.dense(), atol=1e-10)
    assert compiled.error.shape == () and abs(float(compiled.error) - plain.error) < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_vmap_fits_every_tensor_of_a_batch(name: str) -> None:
    def dense(x: Any) -> Any:
        return methods[name]().fit(x, 2, generator=0).value.dense()

    x = noise(name)
    batch = jnp.stack([x, jnp.flip(x)])
    np.testing.assert_allclose(jax.vmap(dense)(batch)[1], dense(batch[1]), atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_pytorch(name: str) -> None:
    x = noise(name)
    ours = jax.grad(lambda x: (methods[name]().fit(x, 2, generator=0).value.dense() ** 3).sum())(x)
    if name.startswith("randomized"):  # other numbers are drawn
        assert np.all(np.isfinite(ours))
        return
    leaf = torch.from_numpy(np.array(x)).requires_grad_()
    loss = (methods[name]().fit(leaf, 2, generator=0).value.dense() ** 3).sum()
    np.testing.assert_allclose(ours, torch.autograd.grad(loss, leaf)[0], atol=1e-8)


def test_the_error_has_a_gradient() -> None:
    x = noise("svd")
    slope = jax.grad(lambda t: TruncatedSVD().fit(x + t * jnp.flip(x), 2).error)(0.0)
    values = [TruncatedSVD().fit(x + t * jnp.flip(x), 2).error for t in (-1e-6, 1e-6)]
    assert float(slope) == pytest.approx((values[1] - values[0]) / 2e-6, rel=1e-4)


def test_a_tensor_from_outside_is_decomposed_inside_jit() -> None:
    x, value = noise("st_hosvd"), train()
    for function in (
        lambda t: t * STHOSVD().fit(x, 2).value.dense(),
        lambda t: t * rounded(value, 2).value.dense(),
        lambda t: t * orthogonalised(value).dense(),
    ):
        np.testing.assert_allclose(jax.jit(function)(2.0), function(2.0), atol=1e-10)


def test_low_rank_in_a_metric_is_traceable() -> None:
    x, moment = noise("svd")[:3, :], jnp.diag(jnp.arange(1.0, 1.0 + noise("svd").shape[1]))

    def dense(x: Any, moment: Any) -> Any:
        return decompose_weighted(TruncatedSVD(), x, 2, [None, root_of(moment)]).value.dense()

    np.testing.assert_allclose(jax.jit(dense)(x, moment), dense(x, moment), atol=1e-10)


def test_gradients_of_what_is_zero_are_finite() -> None:
    zeros = [jnp.zeros((n, 2)) for n in (3, 4)]
    for function in (
        lambda x: squared_residual(x, zeros),
        lambda x: residual_mttkrps(x, zeros)[0],
        lambda x: KroneckerSVD().fit(x.reshape(3, 2, 1, 2), 1).value.dense().sum(),
    ):
        assert np.all(np.isfinite(jax.grad(function)(jnp.zeros((3, 4)))))


def test_gradients_at_a_zero_tensor_are_finite() -> None:
    zero = jnp.zeros((4, 5, 6))
    for method in (STHOSVD(), TTSVD()):
        fit = jax.jit(lambda x, m=method: m.fit(x, 2))
        gradient = jax.grad(lambda x, f=fit: f(x).error + f(x).value.dense().sum())(zero)
        assert np.all(np.isfinite(gradient)) and float(fit(zero).error) == 0.0


EQUAL = jnp.diag(jnp.asarray([2.0, 2.0, 1.0]))


def _second(function: Any, at: Any, along: Any) -> tuple[float, float]:
    """The second derivative along a line, exactly and by differences of the first."""
    slope = jax.grad(lambda t: function(at + t * along))
    return float(jax.grad(slope)(0.0)), float((slope(1e-5) - slope(-1e-5)) / 2e-5)


@pytest.mark.parametrize("at", [EQUAL, jnp.eye(3)], ids=["two", "three"])
def test_second_derivatives_are_right_where_kept_values_coincide(at: Any) -> None:
    along = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3)))
    rank = int((jnp.diag(at) == at[0, 0]).sum())

    def by_svd(x: Any) -> Any:
        u, s, vh = left_svd(x, rank)
        return (((u * s[:rank]) @ vh) ** 3).sum()

    def by_eigh(x: Any) -> Any:
        vectors, values = leading_eigh((x + x.T) / 2, rank)
        return ((vectors * values[:rank] @ vectors.T) ** 3).sum()

    for function in (by_svd, by_eigh):
        exact, difference = _second(function, at, along)
        assert exact == pytest.approx(difference, rel=1e-4)


def train(seed: int = 0) -> TensorTrain:
    return TensorTrain.random((4, 5, 6), 3, like=jnp.zeros(()), generator=seed)


def test_rounding_to_ranks_is_traceable() -> None:
    x = train()
    for value in (x, x * 0.0, x * 1e200):
        plain, (dense, error) = rounded(value, 2), jax.jit(lambda v: _parts(rounded(v, 2)))(value)
        np.testing.assert_allclose(dense, plain.value.dense(), rtol=1e-10, atol=1e-12)
        assert float(error) == pytest.approx(plain.error, abs=1e-12)
    turned = jax.jit(lambda v: orthogonalised(v, centre=1))(x)
    np.testing.assert_allclose(turned.dense(), x.dense(), atol=1e-12)
    np.testing.assert_allclose(turned.cores[0].T @ turned.cores[0], np.eye(3), atol=1e-12)


def _parts(found: Any) -> tuple[Any, Any]:
    return found.value.dense(), found.error


def test_rounding_has_the_gradients_of_pytorch() -> None:
    x = train()
    leaves = [torch.from_numpy(np.array(c)).requires_grad_() for c in x.cores]
    ours = jax.grad(lambda v: (rounded(orthogonalised(v), 2).value.dense() ** 3).sum())(x)
    loss = (rounded(orthogonalised(TensorTrain(tuple(leaves))), 2).value.dense() ** 3).sum()
    for found, expected in zip(ours.cores, torch.autograd.grad(loss, leaves), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_rounding_by_values_says_that_it_needs_them() -> None:
    ring = TensorRing.random((3, 4, 5), 2, like=jnp.zeros(()), generator=0)
    for function, value in [
        (lambda v: rounded(v, tol=0.1).value.dense(), train()),
        (lambda v: rounded(v, 1).value.dense(), ring),
        (lambda v: rounded_randomly(v, 2, generator=0).value.dense(), train()),
    ]:
        with pytest.raises(UnsupportedError, match="by values, which a traced array of JAX does not have"):
            jax.jit(function)(value)


def test_lists_of_entries_say_that_they_need_values() -> None:
    at, values = jnp.asarray([[0, 0], [1, 2]]), jnp.asarray([1.0, 2.0])
    outside = Sparse(at, values, (3, 4))
    for function in (
        lambda v: Sparse(at, v, (3, 4)).values,
        lambda v: outside.map(lambda _: v).dense(),
        lambda v: outside.map(lambda _: v).norm(),
        lambda v: Sparse.from_dense(v).values,
        lambda v: Incomplete.from_nan(v).values,
    ):
        with pytest.raises(UnsupportedError, match="a list of entries makes choices by values"):
            jax.jit(function)(values)
    slope = jax.grad(lambda v: (Sparse(at, v, (3, 4)).dense() ** 2).sum())(values)
    np.testing.assert_allclose(slope, 2 * values)


def test_algebra_is_traceable() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 5)))
    factors = [jnp.ones((n, 2)) * jnp.arange(1.0, n + 1)[:, None] for n in x.shape]

    def everything(x: Any, factors: Any) -> Any:
        gram = factors[0].T @ factors[0] + jnp.eye(2)
        return (
            unfold(x, 1),
            mode_dot(x, factors[2].T, 2),
            multi_mode_dot(x, factors, adjoint=True),
            mttkrp(x, factors, 1),
            khatri_rao(factors),
            contract("i j k, i r, j r -> k r", x, *factors[:2]),
            orthonormalise(factors[2]),
            solve_psd(gram, factors[0].T),
        )

    plain, compiled = everything(x, factors), jax.jit(everything)(x, factors)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    for leaf in jax.tree.leaves(jax.grad(lambda x: mttkrp(x, factors, 0).sum())(x)):
        assert np.all(np.isfinite(leaf))


def test_als_goes_on_for_all_its_steps() -> None:
    x = CP.random((4, 5, 6), 2, like=jnp.zeros(()), generator=1).dense()
    method = CPALS(tol=0.0, max_steps=5, start="random")
    plain = method.fit(x, 2, generator=0)
    compiled = jax.jit(lambda x: method.fit(x, 2, generator=0))(x)
    assert len(compiled.trace) == 5
    np.testing.assert_allclose(compiled.value.dense(), plain.value.dense(), atol=1e-8)


def test_a_solution_of_a_singular_system_has_a_gradient() -> None:
    a = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2)))

    def loss(a: Any) -> Any:
        wide = jnp.concatenate([a, a], axis=1)  # rank 2 of 4, twice
        return (solve_psd(wide.T @ wide, wide.T @ jnp.ones((3, 1))) ** 2).sum()

    gradient = jax.grad(loss)(a)
    step = 1e-6
    for i, j in ((0, 0), (2, 1)):
        rise = (loss(a.at[i, j].add(step)) - loss(a.at[i, j].add(-step))) / (2 * step)
        assert float(gradient[i, j]) == pytest.approx(float(rise), rel=1e-4)


def test_fits_and_formats_are_trees() -> None:
    fit = STHOSVD()(noise("st_hosvd"), (2, 2, None))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, fit)
    assert doubled.error == 2 * fit.error and doubled.steps == fit.steps
    np.testing.assert_allclose(doubled.value.core, 2 * fit.value.core)
    train = TensorTrain((jnp.ones((3, 2)), jnp.ones((2, 4))))
    assert float(jax.jit(lambda t: t.norm())(train)) == pytest.approx(4 * 3**0.5)


@pytest.mark.parametrize("method", [HOSVD(tol=0.1), TTSVD(tol=0.1), TruncatedSVD(tol=0.1)], ids=str)
def test_a_tolerance_is_refused_where_values_are_not_known(method: Any) -> None:
    x = noise("svd" if isinstance(method, TruncatedSVD) else "hosvd")
    with pytest.raises(UnsupportedError, match=r"choices by values|chooses ranks by values"):
        jax.jit(lambda x: method.fit(x).value.dense())(x)


def test_roundings_and_fits_to_functions_are_trees() -> None:
    found = jax.jit(lambda v: rounded(v, 2))(train())
    assert type(found) is Rounded and found.value.ranks == {"R1": 2, "R2": 2} and found.error.shape == ()
    fit = CrossFit(train(), 0.5, 3, True, (0.5,), 70, 10)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, fit)
    assert type(doubled) is CrossFit and doubled.error == 1.0
    assert (doubled.steps, doubled.evaluations, doubled.samples) == (3, 70, 10)


def test_what_chooses_by_values_says_so() -> None:
    value = CP.random((3, 4), 2, like=jnp.zeros(()), generator=0)
    cross = TTCross(samples=5)
    for function, argument in (
        (lambda a: matched(a, a).congruences, value),
        (lambda x: cross.fit(entries_of(x), x.shape, like=x, generator=0).error, noise("svd")),
    ):
        with pytest.raises(UnsupportedError, match="makes choices by values, which a traced array"):
            jax.jit(function)(argument)


def test_a_method_that_chooses_by_values_says_so() -> None:
    with pytest.raises(UnsupportedError, match="makes choices by values, which a traced array"):
        jax.jit(lambda x: methods["cp_gn"]().fit(x, 2, generator=0).value.dense())(noise("hosvd"))
