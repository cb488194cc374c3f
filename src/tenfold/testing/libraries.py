"""The array libraries that are installed, and in which the laws are therefore checked."""

import importlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from tenfold.core.arrays import Array


def _torch() -> Array:
    return torch.zeros((), dtype=torch.float64)


def _jax() -> Array:
    importlib.import_module("jax").config.update("jax_enable_x64", True)
    return importlib.import_module("jax.numpy").zeros((), dtype="float64")


def _dask() -> Array:
    return importlib.import_module("dask.array").from_array(np.zeros(()))


def _cupy() -> Array:
    return importlib.import_module("cupy").zeros(())


MAKERS: dict[str, tuple[str, Callable[[], Array]]] = {
    "numpy": ("numpy", lambda: np.zeros(())),
    "torch": ("torch", _torch),
    "jax": ("jax", _jax),
    "dask": ("dask", _dask),
    "cupy": ("cupy", _cupy),
}


class Libraries:
    """Name of an installed library -> an array of it without axes, in float64, for `like=`.

    A library is imported when its array is asked for; that of JAX switches its 64-bit numbers on.

    >>> LIBRARIES["torch"].dtype
    torch.float64
    """

    def __contains__(self, name: object) -> bool:
        return name in [*self]

    def __iter__(self) -> Iterator[str]:
        return (name for name, (package, _) in MAKERS.items() if find_spec(package) is not None)

    def __getitem__(self, name: str) -> Array:
        return MAKERS[name][1]()

    def array(self, name: str, values: Any) -> Array:
        """Values of NumPy as an array of the library; in chunks of half the sizes for Dask.

        >>> LIBRARIES.array("torch", np.ones(2))
        tensor([1., 1.], dtype=torch.float64)
        """
        values = np.asarray(values)
        if name == "dask":
            chunks = tuple(max(1, (n + 1) // 2) for n in values.shape)
            return importlib.import_module("dask.array").from_array(values, chunks=chunks)
        if name == "torch":
            return torch.from_numpy(np.array(values))
        self[name]  # JAX then knows 64-bit numbers
        return values if name == "numpy" else _namespace(name).asarray(values)


def _namespace(name: str) -> Any:
    return importlib.import_module("jax.numpy" if name == "jax" else name)


LIBRARIES = Libraries()
"""The installed libraries."""
