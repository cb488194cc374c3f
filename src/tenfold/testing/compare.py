"""How the laws compare arrays: one table of tolerances, one message."""

from typing import Any

import array_api_compat as api
import numpy as np
import torch

from tenfold.core.arrays import Array

TOLERANCE = {
    "float64": 1e-10,
    "complex128": 1e-10,
    "float32": 1e-4,
    "complex64": 1e-4,
    "bfloat16": 3e-2,
    "float16": 4e-3,
}
"""Largest difference allowed, relative to the largest entry expected."""


def tolerance(array: Array) -> float:
    """The entry of the table for the dtype of `array`."""
    return TOLERANCE[str(array.dtype).rpartition(".")[2]]


def to_numpy(array: Any) -> np.ndarray:
    """A copy in NumPy, in float64 or complex128, cut off from gradients."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.to(torch.complex128) if array.is_complex() else array.double()).numpy()
    elif api.is_cupy_array(array):
        array = array.get()
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def assert_equal(actual: Array, expected: Any, law: str, tol: float | None = None) -> None:
    """Raise AssertionError unless the arrays agree to the tolerance of the dtype of `actual`."""
    limit = tolerance(actual) if tol is None else tol
    a, e = to_numpy(actual), to_numpy(expected)
    assert a.shape == e.shape, f"{law}: the shape is {a.shape}, expected was {e.shape}"
    assert np.all(np.isfinite(a)), f"{law}: the result is not finite"
    scale = max(1.0, float(np.max(np.abs(e), initial=0.0)))
    difference = float(np.max(np.abs(a - e), initial=0.0)) / scale
    assert difference <= limit, (
        f"{law}: the largest relative difference is {difference:.2e}, allowed {limit:.0e}"
    )
