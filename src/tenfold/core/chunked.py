"""Dask arrays that fit into memory: computed for a calculation, and stored again."""

import importlib
import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Num

from tenfold.core.arrays import Array, is_chunked
from tenfold.core.errors import UnsupportedError, WeightError
from tenfold.core.noise import Generator

IN_MEMORY = 2**29
"""Bytes up to which a Dask array is taken into memory whole."""

P = ParamSpec("P")
R = TypeVar("R")


def through_memory(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: Dask arrays among the arguments are computed before the call, and arrays that come back are
    Dask arrays again, of one chunk."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if not any(is_chunked(a) for a in (*args, *kwargs.values())):
            return function(*args, **kwargs)
        loaded = [load(a) for a in args]
        options = {name: load_generator(load(value)) for name, value in kwargs.items()}
        return _stored(function(*loaded, **options))  # type: ignore[arg-type]

    return wrapped


def _stored(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_stored(r) for r in result)
    return store(result) if isinstance(result, np.ndarray | np.generic) else result


def load(x: Num[Array, "..."]) -> Num[np.ndarray, "..."]:
    """A Dask array computed into NumPy; others as they are.

    Raises:
        UnsupportedError: for a Dask array of more than `IN_MEMORY` bytes.
    """
    if not is_chunked(x):
        return x
    if (size := size_of(x)) > IN_MEMORY:
        raise UnsupportedError(
            f"a Dask array has {size:,} bytes, more than the {IN_MEMORY:,} that are taken into memory.",
            "Compute it yourself if you have the memory, or make it smaller first.",
        )
    return np.asarray(x.compute())


def store(x: Num[Array, "..."]) -> Num[Array, "..."]:
    """An array of NumPy as a Dask array of one chunk; Dask arrays as they are."""
    return x if is_chunked(x) else importlib.import_module("dask.array").from_array(np.asarray(x), chunks=-1)


def load_generator(generator: Generator) -> Generator:
    """A generator for NumPy; one of Dask gives its seed to it."""
    if type(generator).__module__.startswith("dask.") and hasattr(generator, "integers"):
        return np.random.default_rng(int(generator.integers(0, 2**63 - 1, size=1).compute()[0]))
    return generator


def size_of(x: Num[Array, "..."]) -> int:
    """Bytes of `x` when computed.

    Raises:
        WeightError: for a Dask array whose chunks have unknown sizes.
    """
    if any(math.isnan(n) for n in x.shape):
        raise WeightError(
            f"a Dask array has the unknown shape {x.shape}.", "Call its compute_chunk_sizes() first."
        )
    return math.prod(x.shape) * int(x.dtype.itemsize)
