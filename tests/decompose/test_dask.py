"""Dask arrays: lazy algebra, small tensors in memory, large ones in passes over their chunks."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tenfold.algebra import contract, mode_dot, mttkrp, unfold
from tenfold.core import chunked, leading_passes, passes
from tenfold.core.errors import UnsupportedError, WeightError
from tenfold.core.linalg import truncated_svd
from tenfold.core.sparse import Sparse
from tenfold.decompose import (
    CPALS,
    HOSVD,
    STHOSVD,
    TTSVD,
    Method,
    RandomizedHOSVD,
    RandomizedTTSVD,
    methods,
)
from tenfold.formats import Tucker

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

SHAPE = (20, 21, 22)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that the tensors of these tests exceed as 30 GB exceed the real ones."""
    monkeypatch.setattr(chunked, "IN_MEMORY", 2**15)
    monkeypatch.setattr(passes, "AT_ONCE", 2**16)


def tensor(noise: float, shape: tuple[int, ...] = SHAPE, dtype: str = "float64") -> np.ndarray:
    """Of rank 3 in every mode, with noise relative to its norm."""
    low = Tucker.random(shape, 3, like=np.zeros((), dtype=dtype), generator=0).dense()
    draw = np.random.default_rng(1).standard_normal
    disturbance = draw(shape) + (1j * draw(shape) if "complex" in dtype else 0)
    return low + noise * disturbance * np.linalg.norm(low) / np.linalg.norm(disturbance)


class Counted:
    """An array whose chunks are counted when they are made."""

    def __init__(self, x: np.ndarray, chunks: Any) -> None:
        self.x, self.made = x, 0
        self.array = da.map_blocks(
            self._chunk,
            chunks=da.core.normalize_chunks(chunks, x.shape),
            dtype=x.dtype,
            meta=np.empty((0,) * x.ndim, x.dtype),
        )

    def _chunk(self, block_info: Any = None) -> np.ndarray:
        self.made += 1
        return self.x[tuple(slice(*s) for s in block_info[None]["array-location"])]

    @property
    def passes(self) -> float:
        return self.made / self.array.npartitions


def test_algebra_computes_nothing_before_it_is_asked() -> None:
    counted = Counted(tensor(0.1), 10)
    x = counted.array
    factors = [da.from_array(np.ones((n, 2))) for n in SHAPE]
    lazy = [
        unfold(x, 1),
        mode_dot(x, factors[0].T, 0),
        mttkrp(x, factors, 1),
        contract("i j k, i r -> r j k", x, factors[0]),
    ]
    assert counted.made == 0 and all(isinstance(y, da.Array) for y in lazy)
    np.testing.assert_allclose(lazy[1].compute(), mode_dot(counted.x, np.ones((2, 20)), 0), atol=1e-10)


def test_a_mode_product_keeps_the_chunks_of_the_other_modes() -> None:
    x = da.zeros((40, 40, 40), chunks=10)
    for mode in range(3):
        product = mode_dot(x, da.zeros((3, 40)), mode)
        assert [len(c) for k, c in enumerate(product.chunks) if k != mode] == [4, 4]


STREAMING = [HOSVD(), STHOSVD(), TTSVD()]
LAYOUTS = [10, (20, 21, 5), (4, 21, 22), (20, 7, 22)]


@pytest.mark.parametrize("chunks", LAYOUTS, ids=str)
@pytest.mark.parametrize("noise", [0.3, 1e-3, 1e-7, 0.0])
@pytest.mark.parametrize("method", STREAMING, ids=lambda m: type(m).__name__)
def test_streams_find_what_fits_in_memory_find(
    small_memory: None, method: Method[Any], noise: float, chunks: Any
) -> None:
    x = tensor(noise)
    found, expected = method.fit(da.from_array(x, chunks=chunks), 3), method.fit(x, 3)
    assert all(isinstance(f, da.Array) for f in found.value.factors)
    true = np.linalg.norm(x - found.value.dense().compute()) / np.linalg.norm(x)
    assert abs(found.error - true) < 1e-10
    assert found.error <= expected.error * 1.001 + 1e-12
    if chunks != (4, 21, 22):  # slabs that are too long for columns change the order of the modes
        np.testing.assert_allclose(found.value.dense(), expected.value.dense(), atol=1e-10)


@pytest.mark.parametrize("method", [HOSVD, STHOSVD, TTSVD])
@pytest.mark.parametrize("noise, tol", [(0.1, 0.2), (1e-3, 2e-3), (1e-8, 1e-7)])
def test_streams_find_the_ranks_for_a_tolerance(
    small_memory: None, method: Any, noise: float, tol: float
) -> None:
    found = method(tol=tol).fit(da.from_array(tensor(noise), chunks=10))
    assert set(found.value.ranks.values()) == {3} and found.error <= tol


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
@pytest.mark.parametrize("method", STREAMING, ids=lambda m: type(m).__name__)
def test_streams_keep_the_dtype(small_memory: None, method: Method[Any], dtype: str) -> None:
    x = tensor(0.1, dtype="complex128" if "complex" in dtype else "float64").astype(dtype)
    found = method.fit(da.from_array(x, chunks=10), 3)
    assert found.value.dtype == x.dtype
    assert found.error == pytest.approx(method.fit(x, 3).error, rel=1e-4)


@pytest.mark.parametrize("shape, chunks", [((7, 8, 9, 10), 4), ((500, 6, 7), (50, 6, 7)), ((300, 30), 50)])
def test_other_shapes_stream(small_memory: None, shape: tuple[int, ...], chunks: Any) -> None:
    x = tensor(0.05, shape)
    for method in [TTSVD(), *([HOSVD(), STHOSVD()] if len(shape) > 2 else [])]:
        found, expected = method.fit(da.from_array(x, chunks=chunks), 3), method.fit(x, 3)
        assert found.error == pytest.approx(expected.error, rel=1e-3)


def test_modes_that_are_whole_and_ranks_that_are_full_stream(small_memory: None) -> None:
    x = tensor(0.1)
    d = da.from_array(x, chunks=10)
    for ranks in ((None, 3, None), (20, 3, 22), (None, None, 3)):
        found, expected = STHOSVD().fit(d, ranks), STHOSVD().fit(x, ranks)
        np.testing.assert_allclose(found.value.dense(), expected.value.dense(), atol=1e-10)
        assert found.error == pytest.approx(expected.error, abs=1e-10)
    found, expected = TTSVD().fit(d, (20, 3)), TTSVD().fit(x, (20, 3))
    np.testing.assert_allclose(found.value.dense(), expected.value.dense(), atol=1e-10)


RANDOMIZED = [RandomizedHOSVD(oversampling=5), RandomizedTTSVD(oversampling=5, power_iterations=0)]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("chunks", LAYOUTS, ids=str)
@pytest.mark.parametrize("noise", [0.1, 1e-6, 0.0])
@pytest.mark.parametrize("method", RANDOMIZED, ids=lambda m: type(m).__name__)
def test_randomized_streams_are_nearly_as_good(
    small_memory: None, method: Method[Any], noise: float, chunks: Any, dtype: str
) -> None:
    x = tensor(noise, dtype=dtype)
    found, best = method.fit(da.from_array(x, chunks=chunks), 3, generator=0), STHOSVD().fit(x, 3)
    true = np.linalg.norm(x - found.value.dense().compute()) / np.linalg.norm(x)
    assert abs(found.error - true) < 1e-10 and found.error <= 1.5 * best.error + 1e-12
    again = method.fit(da.from_array(x, chunks=chunks), 3, generator=0)
    np.testing.assert_array_equal(found.value.factors[0], again.value.factors[0])


def test_randomized_streams_keep_a_tolerance(small_memory: None) -> None:
    x = da.from_array(tensor(1e-3), chunks=10)
    for method in (RandomizedHOSVD(tol=2e-3), RandomizedTTSVD(tol=2e-3)):
        found = method.fit(x, generator=0)
        assert set(found.value.ranks.values()) == {3} and found.error <= 2e-3


def test_a_random_basis_takes_two_passes_and_one_for_each_power(small_memory: None) -> None:
    for powers, chunks in ((0, (4, 21, 22)), (1, (20, 21, 4))):
        counted = Counted(tensor(0.1), chunks)
        RandomizedHOSVD(oversampling=2, power_iterations=powers).fit(counted.array, 3, generator=0)
        assert counted.passes == 2 + powers


def test_passes_over_the_data_are_few(small_memory: None) -> None:
    for method, chunks, most in [
        (STHOSVD(), (20, 21, 4), 2),
        (TTSVD(), (20, 21, 4), 2),
        (HOSVD(), (20, 21, 4), 4),  # one for two modes, two for the last one in two parts, one for the core
    ]:
        counted = Counted(tensor(0.1), chunks)
        method.fit(counted.array, 3)
        assert counted.passes <= most, f"{method} made every chunk {counted.passes} times"


def test_small_discarded_parts_take_one_more_pass(small_memory: None) -> None:
    counted = Counted(tensor(1e-8), (20, 21, 4))
    STHOSVD().fit(counted.array, 3)
    assert counted.passes == 4  # two for the basis, one for the projection, one for the error


def test_a_zero_tensor_streams(small_memory: None) -> None:
    fit = STHOSVD().fit(da.zeros(SHAPE, chunks=10), 2)
    assert fit.error == 0.0 and not fit.value.dense().any().compute()


@pytest.mark.parametrize("method", [*STREAMING, *RANDOMIZED], ids=lambda m: type(m).__name__)
def test_entries_whose_squares_are_lost_are_refused(small_memory: None, method: Method[Any]) -> None:
    x = da.from_array(tensor(0.1), chunks=10)
    with pytest.raises(WeightError, match=r"too small for float64\.\nScale it first"):
        method.fit(x * 1e-200, 2, generator=0)


@pytest.mark.parametrize("method", [*STREAMING, *RANDOMIZED], ids=lambda m: type(m).__name__)
def test_empty_chunks_are_passed_over(small_memory: None, method: Method[Any]) -> None:
    x = tensor(0.1)
    chunks = ((12, 0, 8), (21,), (0, 22))
    found = method.fit(da.from_array(x, chunks=chunks), 3, generator=0)
    true = np.linalg.norm(x - found.value.dense().compute()) / np.linalg.norm(x)
    assert abs(found.error - true) < 1e-10 and 0 < found.error < 0.15


@pytest.mark.parametrize("noise", [0.1, 1e-9])
def test_a_core_that_is_larger_than_memory_stays_lazy(small_memory: None, noise: float) -> None:
    x, ranks = tensor(noise), (20, 20, 19)
    x = x if noise > 1e-3 else Tucker.random(SHAPE, ranks, like=x, generator=0).dense() + 1e-8 * x
    counted = Counted(x, 10)
    found, expected = HOSVD().fit(counted.array, ranks), HOSVD().fit(x, ranks)
    made = counted.made
    assert found.value.core.compute().shape == ranks and counted.made > made
    np.testing.assert_allclose(found.value.dense(), expected.value.dense(), atol=1e-8)
    true = np.linalg.norm(x - found.value.dense().compute()) / np.linalg.norm(x)
    assert true > 0 and abs(found.error - true) < 1e-12


@pytest.mark.parametrize("method", STREAMING, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_streams_refuse_entries_that_are_not_finite(
    small_memory: None, method: Method[Any], bad: float
) -> None:
    x = tensor(0.1)
    x[3, 4, 5] = bad
    with pytest.raises(WeightError, match="'the tensor' has 1 entry of 9240 that is NaN or infinite"):
        method.fit(da.from_array(x, chunks=10), 2)


def test_a_large_array_is_refused_by_methods_that_cannot_stream(small_memory: None) -> None:
    with pytest.raises(UnsupportedError) as error:
        CPALS().fit(da.zeros(SHAPE), 2)
    assert "CPALS takes a Dask array into memory, but this one has 73,920 bytes" in str(error.value)
    assert "st_hosvd" in str(error.value) and "tt_svd" in str(error.value)
    with pytest.raises(UnsupportedError, match="make it smaller first"):
        truncated_svd(da.zeros((100, 100)), 2)


def test_a_gram_matrix_above_memory_is_refused(small_memory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="whose shorter side is 100 long"):
        leading_passes.leading(da.zeros((100, 200), chunks=50), (0,), 2)


def test_unknown_shapes_are_refused() -> None:
    x = da.ones((10, 4), chunks=5)
    with pytest.raises(WeightError, match=r"Call its compute_chunk_sizes\(\) first"):
        TTSVD().fit(x[x[:, 0] > 0], 2)


def test_seeds_and_generators_of_dask_are_taken() -> None:
    x = da.from_array(tensor(0.1), chunks=10)
    first, again = (methods["cp_als"](max_steps=3).fit(x, 2, generator=7) for _ in range(2))
    assert first.error == again.error
    own = CPALS(start="random", max_steps=3).fit(x, 2, generator=da.random.default_rng(3))
    assert isinstance(own.value.factors[0], da.Array)


def test_lists_of_entries_are_computed_too() -> None:
    x = np.zeros((4, 5, 6))
    x[0, 1, 2], x[3, 4, 5] = 2.0, -1.0
    at = np.argwhere(x)
    takers = [name for name in methods if Sparse in methods[name].accepts]
    entries = Sparse(da.from_array(at), da.from_array(x[tuple(at.T)]), x.shape)
    fit = methods[takers[0]]().fit(entries, 2, generator=0)
    assert isinstance(fit.value.factors[0], da.Array)


LARGE = """
import json, resource, sys
import dask, dask.array as da, numpy as np
from tenfold.core import chunked, passes
from tenfold.decompose import methods
from tenfold.formats import Tucker

chunked.IN_MEMORY, passes.AT_ONCE = 2**23, 2**23
low = Tucker.random((290, 291, 292), 4, like=np.zeros(()), generator=0)

def chunk(block_info=None):
    at = block_info[None]["array-location"]
    noise = np.random.default_rng([s for s, _ in at]).standard_normal([b - a for a, b in at])
    return low[tuple(slice(*s) for s in at)].dense() + 0.1 * noise

chunks = da.core.normalize_chunks(58, low.shape)
def tensor(n):
    return da.map_blocks(chunk, chunks=chunks, dtype=np.float64, meta=np.empty((0, 0, 0)))[:n, :n, :n]

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
method = methods[sys.argv[1]]()
with dask.config.set(scheduler="threads", num_workers=2):
    method.fit(tensor(116), 4, generator=0)  # what code and libraries take
    start = peak()
    x = tensor(None)
    error = method.fit(x, 4, generator=0).error
print(json.dumps({"bytes": x.nbytes, "held": peak() - start, "error": error}))
"""


@pytest.mark.parametrize("name", ["tt_svd", "st_hosvd", "randomized_hosvd"])
def test_a_large_tensor_needs_a_fraction_of_its_memory(name: str) -> None:
    command = [sys.executable, "-c", LARGE, name]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    assert found["bytes"] > 190e6
    assert found["held"] < 60e6, f"{name} holds {found['held'] / 1e6:.0f} MB"
    assert 0.05 < found["error"] < 0.3
