"""Every array library gives the same numbers: differences of at most 1e-10 in 64 bits."""

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.core.arrays import check_finite, namespace
from tenfold.core.errors import WeightError
from tenfold.core.linalg import (
    leading_left,
    orthonormalise,
    randomized_svd,
    rank_for_tolerance,
    solve_psd,
    truncated_svd,
)
from tenfold.decompose import TTCross, methods
from tenfold.formats import Format, formats
from tenfold.testing.compare import assert_equal, to_numpy
from tenfold.testing.formats import SHAPES, holds
from tenfold.testing.libraries import LIBRARIES

GPU = pytest.mark.gpu
OTHERS = [pytest.param(name, marks=GPU if name == "cupy" else ()) for name in LIBRARIES if name != "numpy"]
DTYPES = ["float64", "complex128"]

OPERATIONS: dict[str, Callable[[Format], Any]] = {
    "dense": lambda x: x.dense(),
    "norm": lambda x: x.norm(),
    "inner": lambda x: (2 * x).inner(x),
    "slice": lambda x: x[1:, ..., 0:2].dense(),
    "integer": lambda x: x[1].dense(),
    "difference": lambda x: (3 * x - x).dense(),
    "mode product": lambda x: (
        x.mode_dot(namespace(x.factors[0]).ones_like(x.dense()).T, 0).dense()
        if len(x.shape) == 2
        else x.dense()
    ),
}


def moved(x: Format, library: str) -> Format:
    """The same format over arrays of another library."""
    return x.map(lambda f: LIBRARIES.array(library, f))


def near(actual: Any, expected: Any, law: str) -> None:
    """Within 1e-10, and in the right library."""
    assert_equal(actual, to_numpy(expected), law, 1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", OTHERS)
@pytest.mark.parametrize("name", formats)
def test_operations_of_formats_agree(name: str, library: str, dtype: str) -> None:
    shape = SHAPES[next(o for o in (3, 4, 2) if holds(formats[name], o))]
    x = formats[name].random(shape, 2, like=np.zeros((), dtype=dtype), generator=0)
    y = moved(x, library)
    for operation, function in OPERATIONS.items():
        found = function(y)
        assert namespace(found) is namespace(LIBRARIES[library]), f"{operation} leaves {library}"
        near(found, function(x), f"{operation} of {name} in {library}")


QUICK = ("tt_svd", "st_hosvd", "svd", "kronecker_svd")
"""Methods that are compared in JAX by default: it compiles every operation for every shape."""
PAIRS = [
    pytest.param(name, library, marks=pytest.mark.slow if library == "jax" and name not in QUICK else marks)
    for name in methods
    for (library,), marks in ((other.values, other.marks) for other in OTHERS)
]


def tensor_for(name: str) -> np.ndarray:
    """Noise of a shape that the method's format holds."""
    shape = SHAPES[next(o for o in (3, 4, 2) if holds(methods[name]().format, o))]
    return np.random.default_rng(0).standard_normal(shape)


def deterministic(name: str, x: np.ndarray) -> bool:
    """Whether the seed makes no difference."""
    a, b = (methods[name]().fit(x, 2, generator=seed).value.dense() for seed in (0, 1))
    return np.array_equal(a, b)


@pytest.mark.parametrize("name, library", PAIRS)
def test_methods_agree(name: str, library: str) -> None:
    x = tensor_for(name)
    y = LIBRARIES.array(library, x)
    expected, found = (methods[name]().fit(array, 2, generator=0) for array in (x, y))
    assert all(namespace(f) is namespace(y) for f in found.value.factors), f"{name} leaves {library}"
    assert found.value.ranks == expected.value.ranks
    if library == "dask" or deterministic(name, x):  # Dask is given the numbers of NumPy
        near(found.value.dense(), expected.value.dense(), f"{name} in {library}")
        near(np.asarray(found.error), expected.error, f"the error of {name} in {library}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", OTHERS)
def test_linear_algebra_agrees(library: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4)) + (1j * rng.standard_normal((6, 4)) if dtype == "complex128" else 0)
    a = LIBRARIES.array(library, x)
    gram, b = LIBRARIES.array(library, x.conj().T @ x), LIBRARIES.array(library, x[:4, :2])
    for function in (truncated_svd, leading_left):
        for actual, expected in zip(function(a, 2), function(x, 2), strict=True):
            near(actual, expected, f"{function.__name__} in {library}")
    for actual, expected in zip(orthonormalise(a), orthonormalise(x), strict=True):
        near(actual, expected, f"orthonormalise in {library}")
    near(solve_psd(gram, b), solve_psd(x.conj().T @ x, x[:4, :2]), f"solve_psd in {library}")
    u, s, vh, error = randomized_svd(a, 4, generator=0)
    near((u * s) @ vh, x, f"randomized_svd in {library}")
    assert float(error) < 1e-12 and rank_for_tolerance(s, 1e-6) == 4


def test_the_examples_of_the_documentation_run() -> None:
    for package in ("jax", "dask"):
        pytest.importorskip(package)
    guide = Path(__file__).parent.parent / "docs" / "array_libraries.md"
    failed, tried = doctest.testfile(str(guide), module_relative=False)
    assert tried > 10 and failed == 0


def test_jax_without_64_bits_does_not_warn() -> None:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(False):
        x = jax.numpy.ones((4, 5), dtype="float32")
        assert float(truncated_svd(x, 2)[1][0]) == pytest.approx(20**0.5)
        assert rank_for_tolerance(jax.numpy.asarray([2.0, 1.0]), 0.5) == 2
        with pytest.raises(WeightError, match="has 20 entries of 20"):
            check_finite(x * jax.numpy.inf, "x")
        fit = TTCross(tol=1e-3, samples=50).fit(
            lambda i: jax.numpy.sin(i.sum(axis=1) * 1.0), (4,) * 3, like=jax.numpy.zeros(()), generator=0
        )
        assert fit.error < 1e-3 and fit.value.dtype == jax.numpy.float32
