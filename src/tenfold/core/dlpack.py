"""Tensors of other libraries in and out, by the DLPack protocol: TensorFlow, Paddle, MindSpore, and so on.

A tensor that speaks DLPack shares its memory with the array that is made of it, on its device, where both
libraries allow it; no library is imported but the one that is asked for.

    array = from_dlpack(tensor, "torch")           # tensor of any library -> PyTorch
    fit = STHOSVD()(array, 8)
    core = tf.experimental.dlpack.from_dlpack(to_dlpack(fit.value.core))
"""

import importlib
from collections.abc import Callable
from typing import Any

import array_api_compat as api
import torch
from jaxtyping import Num

from tenfold.core.arrays import Array
from tenfold.core.errors import MissingExtraError, OptionError, WeightError

READERS: dict[str, tuple[str, Callable[[Any, Any], Array]]] = {
    "numpy": ("numpy", lambda numpy, tensor: numpy.from_dlpack(tensor)),
    "torch": ("torch", lambda _, tensor: torch.from_dlpack(tensor)),
    "jax": ("jax.numpy", lambda jnp, tensor: jnp.from_dlpack(tensor)),
    "cupy": ("cupy", lambda cupy, tensor: cupy.from_dlpack(tensor)),
}


def from_dlpack(tensor: Any, library: str = "numpy") -> Num[Array, "..."]:
    """A tensor of any library as an array of "numpy", "torch", "jax" or "cupy".

    Shares the memory where the libraries allow it: do not write into either. A tensor on a GPU goes to a
    library that has GPUs. TensorFlow's `EagerTensor` speaks the protocol; `tf.Variable` by `.value()`. JAX
    rounds to 32 bits unless its 64-bit numbers are switched on.

    Raises:
        OptionError: for another library.
        MissingExtraError: if the library is not installed.
        WeightError: if the tensor speaks no DLPack, or the library cannot read it, as NumPy on a GPU.

    >>> import numpy as np
    >>> from_dlpack(np.arange(3.0), "torch")
    tensor([0., 1., 2.], dtype=torch.float64)
    """
    if library not in READERS:
        raise OptionError(f"the library came as {library!r}.", f"Choose one of {', '.join(READERS)}.")
    if not (hasattr(tensor, "__dlpack__") and hasattr(tensor, "__dlpack_device__")):
        raise WeightError(
            f"a {type(tensor).__name__} does not speak DLPack.",
            "Make it a NumPy array, e.g. with `.numpy()`.",
        )
    package, read = READERS[library]
    try:
        module = importlib.import_module(package)
    except ImportError as problem:
        raise MissingExtraError(library, library, f"from_dlpack(..., {library!r})") from problem
    try:
        return read(module, _plain(tensor))
    except (BufferError, RuntimeError, TypeError, ValueError) as problem:
        raise WeightError(
            f"{library} cannot read a {type(tensor).__name__} by DLPack: {problem}.",
            "Move it to the CPU, or choose a library that has its device and dtype.",
        ) from problem


def to_dlpack(array: Num[Array, "..."]) -> Num[Array, "..."]:
    """An array that another library's `from_dlpack` can take, in the same memory where possible.

    Cut off from gradients, computed if it is Dask's, and writable, which some libraries insist on.

    >>> import numpy as np
    >>> np.from_dlpack(to_dlpack(torch.ones(2, requires_grad=True)))
    array([1., 1.], dtype=float32)
    """
    if isinstance(array, torch.Tensor):
        array = array.detach()
    if api.is_dask_array(array):
        array = array.compute()
    if api.is_numpy_array(array) and not array.flags.writeable:
        return array.copy()
    return _plain(array)


def _plain(array: Any) -> Any:
    """A copy of what is kept in a way that DLPack cannot say: conjugated, negated, or from its end."""
    if isinstance(array, torch.Tensor):
        return array.resolve_conj().resolve_neg()
    if api.is_numpy_array(array) and any(step < 0 for step in array.strides):
        return array.copy()
    return array
