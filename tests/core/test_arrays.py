import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.conftest import Library

from tenfold.core.arrays import (
    adjoint,
    cast_like,
    check_finite,
    compute_dtype,
    constant,
    device_of,
    is_chunked,
    is_complex,
    is_floating,
    is_traced,
    namespace,
    real_dtype,
    to_compute,
)
from tenfold.core.errors import OptionError, WeightError
from tenfold.core.noise import as_generator, normal
from tenfold.testing.libraries import LIBRARIES


@pytest.fixture(params=[*LIBRARIES])
def library(request):
    return Library(request.param)


def test_a_list_is_refused_with_a_remedy():
    with pytest.raises(WeightError, match=r"got list.*\n.*numpy\.asarray"):
        namespace([1.0])


def test_arrays_of_two_libraries_are_refused():
    with pytest.raises(WeightError, match="arrays of one library, but got Tensor, ndarray"):
        namespace(np.ones(1), torch.ones(1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_wide_dtypes_are_computed_in_themselves(library, dtype):
    x = library.normal(3, dtype=dtype)
    assert compute_dtype(x) == x.dtype
    assert to_compute(x) is x


def test_half_precision_is_computed_in_float32(library):
    assert compute_dtype(library.array([1.0], "float16")) == library.xp.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_torch_dtypes_are_computed_in_float32(dtype):
    assert to_compute(torch.ones(2).to(dtype)).dtype == torch.float32


def test_integers_are_computed_in_the_default_float():
    assert compute_dtype(np.arange(3)) == np.float64
    assert compute_dtype(torch.arange(3)) == torch.float32


def test_singular_values_stay_real_beside_complex_vectors(library):
    like, values = library.normal(2, dtype="complex64"), library.normal(2)
    assert real_dtype(like) == library.xp.float32
    assert cast_like(values, like).dtype == library.xp.float32
    assert cast_like(library.normal(2, dtype="complex128"), like).dtype == library.xp.complex64


def test_results_for_integers_keep_their_own_dtype(library):
    values = library.normal(2)
    assert cast_like(values, library.array([1, 2], "int64")) is values


def test_kinds_of_dtype(library):
    assert is_complex(library.normal(1, dtype="complex64")) and not is_complex(library.normal(1))
    assert is_floating(library.normal(1)) and not is_floating(library.array([1], "int64"))


def test_adjoint_conjugates_and_transposes(library):
    a = library.normal(2, 3, dtype="complex128")
    np.testing.assert_array_equal(np.asarray(library.xp.conj(a)).T, np.asarray(adjoint(a)))


def test_finite_arrays_and_integers_pass(library):
    check_finite(library.normal(3), "w")
    check_finite(library.array([1], "int64"), "w")


def test_entries_that_are_not_finite_are_counted(library):
    weight = library.array([[np.nan, 1.0], [np.inf, 2.0]])
    with pytest.raises(WeightError) as raised:
        check_finite(weight, "conv1.weight")
    assert str(raised.value) == (
        "'conv1.weight' has 2 entries of 4 that are NaN or infinite.\n"
        "A decomposition of it would hold nothing else. Repair it, or leave this weight out."
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_noise_has_the_dtype_asked_for_and_unit_variance(library, dtype):
    like = library.array([1.0], dtype)
    drawn = normal((200, 100), like=like, generator=3)
    assert drawn.dtype == like.dtype and tuple(drawn.shape) == (200, 100)
    numbers = np.asarray(drawn).astype("complex128")
    assert abs(numbers.mean()) < 0.03 and abs((abs(numbers) ** 2).mean() - 1) < 0.03


def test_noise_for_integers_is_floating(library):
    like = library.array([1], "int64")
    assert normal((2,), like=like).dtype == compute_dtype(like)


def test_the_same_seed_gives_the_same_numbers(library):
    like = library.normal(1)
    first, again, other = (normal((4,), like=like, generator=seed) for seed in (5, 5, 6))
    assert library.xp.all(first == again) and not library.xp.any(first == other)


def test_a_generator_moves_on(library):
    like = library.normal(1)
    stream = as_generator(5, like=like)
    first, second = (normal((4,), like=like, generator=stream) for _ in range(2))
    assert library.xp.all(first == normal((4,), like=like, generator=np.int64(5)))
    assert not library.xp.any(first == second)
    assert as_generator(stream, like=like) is stream


def test_without_a_seed_the_numbers_are_fresh(library):
    like = library.normal(1)
    assert not library.xp.any(normal((4,), like=like) == normal((4,), like=like))


def test_torch_without_a_seed_follows_manual_seed():
    like = torch.ones(1)
    torch.manual_seed(1)
    first = normal((4,), like=like)
    torch.manual_seed(1)
    assert torch.equal(first, normal((4,), like=like))


@pytest.mark.parametrize(
    ("like", "generator"), [(torch.ones(1), np.random.default_rng()), (np.ones(1), torch.Generator())]
)
def test_the_generator_of_another_library_is_refused(like, generator):
    with pytest.raises(OptionError, match="Pass an int seed, a generator of the same library, or None"):
        normal((1,), like=like, generator=generator)


@pytest.mark.parametrize(
    "generator", ["a", 1.5, np.random.RandomState(0), np.ones(2)], ids=lambda g: type(g).__name__
)
def test_what_is_no_generator_is_refused(library, generator):
    like = library.normal(1)
    with pytest.raises(OptionError, match="Pass an int seed, a generator of the same library, or None"):
        normal((1,), like=like, generator=generator)


def test_a_negative_seed_is_refused(library):
    with pytest.raises(OptionError, match=r"a seed came as -1\.\nGive 0 or more"):
        normal((1,), like=library.normal(1), generator=-1)


def test_generators_of_pytorch_and_numbers_are_no_keys_of_jax():
    jax, like = pytest.importorskip("jax"), LIBRARIES["jax"]
    for generator in (torch.Generator(), np.random.default_rng(0), jax.numpy.ones(2)):
        with pytest.raises(OptionError, match="the generator of a"):
            normal((1,), like=like, generator=generator)
    assert normal((2,), like=like, generator=jax.random.PRNGKey(3)).shape == (2,)


def test_noise_goes_to_the_device_of_like():
    assert normal((2,), like=torch.ones(1, device="meta"), generator=0).device.type == "meta"


def test_no_library_is_imported_before_its_arrays_arrive():
    program = (
        "import sys, numpy as np, torch; from tenfold.core.noise import normal\n"
        "from tenfold.decompose import STHOSVD, CPALS\n"
        "for like in (np.ones(1), torch.ones(1)):\n"
        "    STHOSVD()(normal((4, 5, 6), like=like, generator=0), 2)\n"
        "assert not {'jax', 'cupy', 'dask'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_arrays_with_values_are_not_traced(library):
    assert not is_traced(library.normal(2), 1.0)


def test_arrays_under_transformations_of_jax_are_traced():
    jax = pytest.importorskip("jax")
    seen = []

    def note(x):
        seen.append((is_traced(x), is_traced(1.0, x), device_of(x)))
        check_finite(x, "x")
        return constant(x).sum()

    x = LIBRARIES.array("jax", [1.0, np.nan])
    jax.jit(note)(x)
    jax.vmap(note)(x[None, :])
    assert not jax.grad(note)(x).any()
    assert seen == [(True, True, None)] * 3


def test_arrays_from_outside_are_traced_inside_jit():
    jax, outside, seen = pytest.importorskip("jax"), LIBRARIES.array("jax", [1.0, 2.0]), []

    def note(x):
        seen.append((is_traced(outside), is_traced(np.ones(2), 1.0)))
        return x.sum()

    for transformed in (jax.jit(note), jax.grad(note), jax.jit(jax.grad(note))):
        transformed(outside)
    jax.vmap(note)(outside[None, :])
    assert seen == [(True, False), (False, False), (True, False), (False, False)]


def test_only_arrays_of_dask_are_chunked(library):
    assert is_chunked(library.normal(2)) == (library.name == "dask")


def test_no_gradient_flows_through_a_constant(library):
    x = library.normal(3)
    assert library.xp.all(constant(x) == x)
    leaf = torch.ones(2, requires_grad=True)
    assert not constant(leaf).requires_grad


def test_dask_takes_generators_of_numpy_and_its_own():
    like, da = LIBRARIES["dask"], pytest.importorskip("dask.array")
    for source in (np.random.default_rng(0), da.random.default_rng(0)):
        stream = as_generator(source, like=like)
        first, second = (normal((4,), like=like, generator=stream).compute() for _ in range(2))
        assert not np.any(first == second)


def test_a_key_of_jax_is_a_generator():
    jax, like = pytest.importorskip("jax"), LIBRARIES["jax"]
    first, again = (normal((4,), like=like, generator=jax.random.key(3)) for _ in range(2))
    assert (first == again).all() and (first == normal((4,), like=like, generator=3)).all()
