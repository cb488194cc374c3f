"""Formats in JAX: trees of their factors, and what runs under its transformations."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tenfold.core.errors import UnsupportedError
from tenfold.formats import BlockTerm, General, HierarchicalTucker, TensorTrain, Tucker
from tenfold.testing.libraries import LIBRARIES

jax = pytest.importorskip("jax")
LIKE = LIBRARIES["jax"]

CASES = [
    Tucker.random((4, 5, 3), (2, 2, None), like=LIKE, generator=0),
    TensorTrain.random((4, 5, 3), 2, like=LIKE, generator=0),
    BlockTerm.random((4, 5, 3), 2, like=LIKE, generator=0),
    HierarchicalTucker.random((4, 5, 3), 2, like=LIKE, generator=0, tree=((2, 0), 1)),
    General.random((4, 5), 2, like=LIKE, generator=0, joined=(("m0", "A", "B"), ("B", "A", "m1"))),
]


@pytest.mark.parametrize("value", CASES, ids=lambda v: type(v).__name__)
def test_the_leaves_are_the_factors(value: Any) -> None:
    leaves, structure = jax.tree.flatten(value)
    assert all(leaf is f for leaf, f in zip(leaves, value.factors, strict=True))
    twin = jax.tree.unflatten(structure, leaves)
    assert type(twin) is type(value) and twin.static == value.static and twin.network == value.network
    assert jax.tree.structure(twin) == structure


@pytest.mark.parametrize("value", CASES[:4], ids=lambda v: type(v).__name__)
def test_formats_pass_through_jit_and_grad(value: Any) -> None:
    indices = np.zeros((3, len(value.shape)), dtype=np.int64)

    @jax.jit
    def function(x: Any, at: Any) -> Any:
        return (2 * x - x * 0.5).dense().sum() + x.at(at).sum() + x.norm() ** 2

    dense = np.asarray(value.dense())
    expected = 1.5 * dense.sum() + 3 * dense[(0,) * dense.ndim] + (dense**2).sum()
    np.testing.assert_allclose(function(value, jax.numpy.asarray(indices)), expected)
    gradient = jax.grad(function)(value, jax.numpy.asarray(indices))
    assert type(gradient) is type(value) and gradient.ranks == value.ranks
    step = jax.tree.map(lambda x, g: x - 1e-4 * g, value, gradient)
    assert function(step, jax.numpy.asarray(indices)) < expected


def test_tensors_of_one_structure_can_be_mapped_over() -> None:
    many = [TensorTrain.random((4, 5, 3), 2, like=LIKE, generator=k) for k in range(3)]
    stacked = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *many)
    norms = jax.vmap(lambda x: x.norm())(stacked)
    np.testing.assert_allclose(norms, [float(x.norm()) for x in many])


def test_a_norm_of_zero_has_a_derivative() -> None:
    zero = CASES[1] * 0.0
    slope = jax.grad(lambda x: x.norm())(zero)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
    assert jax.jvp(lambda x: x.norm(), (zero,), (CASES[1],))[1] == 0.0


def test_a_mask_that_has_no_values_is_refused() -> None:
    mask = np.asarray([True, False, True, False])
    with pytest.raises(UnsupportedError, match="a mask makes choices by values"):
        jax.jit(lambda x, at: x[at].dense())(CASES[1], jax.numpy.asarray(mask))
    kept = jax.jit(lambda x: x[mask].dense())(CASES[1])
    np.testing.assert_allclose(kept, CASES[1].dense()[mask])


ORDERS = {
    "jax first": "import jax; import tenfold",
    "tenfold first": "import tenfold.formats, sys; assert 'jax' not in sys.modules; import jax",
}


@pytest.mark.parametrize("order", ORDERS)
def test_jax_is_not_imported_by_us_and_knows_formats_in_any_order_of_imports(order: str) -> None:
    code = (
        f"{ORDERS[order]}\nimport jax.numpy as jnp\nfrom tenfold.formats import CP\n"
        "x = CP((jnp.ones((3, 2)), jnp.ones((4, 2))))\nassert len(jax.tree.leaves(x)) == 2"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
