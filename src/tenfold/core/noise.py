"""Random numbers in the library and dtype and on the device of an array, the same for the same seed.

JAX, CuPy and Dask are imported only when an array of theirs arrives.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import array_api_compat as api
import numpy as np
import torch
from jaxtyping import Float

from tenfold.core.arrays import Array, DType, cast, cast_like, compute_dtype, is_complex, namespace
from tenfold.core.errors import OptionError

Generator = Any


def as_generator(generator: Generator, *, like: Array) -> Generator:
    """A source of random numbers for `normal` that moves on with every draw.

    Make one per algorithm and pass it to every draw: two draws from the same *int* are the same numbers.

    Args:
        generator: a seed; a generator of the library of `like` (`numpy.random.Generator`, `torch.Generator`,
            a `jax.random` key, …); or None for fresh numbers, in PyTorch from its global generator.

    Raises:
        OptionError: for a generator of another library, and for a negative seed.
    """
    if generator is None or isinstance(generator, int | np.integer):
        return _seeded(None if generator is None else _checked_seed(int(generator)), like)
    if not _serves(generator, like):
        raise OptionError(
            f"the generator of a {type(like).__name__} cannot be a {type(generator).__name__}.",
            "Pass an int seed, a generator of the same library, or None.",
        )
    return _JaxStream(generator) if api.is_jax_array(generator) else generator


def _checked_seed(seed: int) -> int:
    if seed < 0:
        raise OptionError(f"a seed came as {seed}.", "Give 0 or more.")
    return seed


def _serves(generator: Any, like: Array) -> bool:
    """Whether a generator belongs to the library of `like`. Dask takes those of NumPy, too."""
    if api.is_torch_array(like):
        return isinstance(generator, torch.Generator)
    if api.is_jax_array(like):
        return isinstance(generator, _JaxStream) or _is_key(generator)
    if api.is_cupy_array(like):
        return _is_generator_of("cupy", generator)
    own = api.is_dask_array(like) and _is_generator_of("dask", generator)
    return own or isinstance(generator, np.random.Generator)


def _is_key(generator: Any) -> bool:
    """Whether it is a key of `jax.random`: of a dtype of its own, or of unsigned numbers, as of old."""
    return api.is_jax_array(generator) and str(generator.dtype).startswith(("key<", "uint32"))


def _is_generator_of(library: str, generator: Any) -> bool:
    """Whether it is a `random.Generator` of CuPy or Dask, which are not imported for that."""
    kind = type(generator)
    return kind.__module__.partition(".")[0] == library and hasattr(generator, "standard_normal")


def normal(shape: Sequence[int], *, like: Array, generator: Generator = None) -> Float[Array, "..."]:
    """An array of independent standard normal numbers, in the library and dtype and on the device of `like`.

    Complex entries have variance 1, half of it in each part. Where `like` holds integers, the dtype is
    `compute_dtype(like)`. The same seed gives the same numbers, on every device of a library; therefore an
    int seed gives the same numbers *each time*, and `as_generator(seed, like=…)` is for several independent
    arrays.

    >>> import numpy as np
    >>> float(normal((2, 3), like=np.ones(1), generator=0)[0, 0])
    0.1257...
    """
    stream = as_generator(generator, like=like)
    dtype = compute_dtype(like)
    if is_complex(like):
        xp = namespace(like)
        pair = _draw((2, *shape), xp.float32 if dtype == xp.complex64 else xp.float64, like, stream)
        return cast_like((pair[0, ...] + 1j * pair[1, ...]) / 2**0.5, like)
    return cast_like(_draw(tuple(shape), dtype, like, stream), like)


def _seeded(seed: int | None, like: Array) -> Generator:
    """The library's own generator; PyTorch's lives on the CPU, so that the device changes no numbers."""
    if api.is_torch_array(like):
        return torch.default_generator if seed is None else torch.Generator().manual_seed(seed)
    if api.is_jax_array(like):
        key = np.random.SeedSequence().generate_state(1)[0] if seed is None else seed
        return _JaxStream(importlib.import_module("jax.random").key(key))
    if api.is_cupy_array(like):
        return importlib.import_module("cupy").random.default_rng(seed)
    if api.is_dask_array(like):
        return importlib.import_module("dask.array").random.default_rng(seed)
    return np.random.default_rng(seed)


def _draw(shape: tuple[int, ...], dtype: DType, like: Array, generator: Generator) -> Float[Array, "..."]:
    if api.is_torch_array(like):
        return torch.randn(shape, dtype=dtype, device=generator.device, generator=generator).to(like.device)
    if api.is_jax_array(like):
        return generator.normal(shape, dtype)
    if api.is_dask_array(like):
        return cast(importlib.import_module("dask.array").asarray(generator.standard_normal(shape)), dtype)
    return namespace(like).asarray(generator.standard_normal(shape, dtype=dtype))


class _JaxStream:
    """A `jax.random` key that is split at every draw, as other libraries move on by themselves."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def normal(self, shape: tuple[int, ...], dtype: DType) -> Float[Array, "..."]:
        random = importlib.import_module("jax.random")
        self._key, now = random.split(self._key)
        return random.normal(now, shape, dtype)
