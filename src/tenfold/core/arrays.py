"""What tenfold asks of an array beyond the array API standard: its namespace and its working precision.

Arrays stay in the library and on the device they came from. JAX, CuPy and Dask are imported only when an
array of theirs arrives.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import array_api_compat as api
import numpy as np
import torch
from jaxtyping import Bool, Float, Num

from tenfold.core.errors import UnsupportedError, WeightError
from tenfold.core.trees import announce

Array = Any
DType = Any


def namespace(*arrays: Array) -> ModuleType:
    """The array API namespace of arrays that belong to one library.

    Raises:
        WeightError: if one of them is no array, or they come from different libraries.

    >>> import numpy as np
    >>> namespace(np.ones(2)).__name__
    'array_api_compat.numpy'
    """
    try:
        xp: ModuleType = api.array_namespace(*arrays)
    except TypeError as problem:
        kinds = ", ".join(sorted({type(array).__name__ for array in arrays}))
        raise WeightError(
            f"expected arrays of one library, but got {kinds}: {problem}.",
            "Convert them first, e.g. with numpy.asarray or torch.as_tensor.",
        ) from problem
    announce()
    return xp


def is_traced(*arrays: Array) -> bool:
    """Whether one of them stands for values not yet known, as inside `jax.jit`, `jax.vmap` and `jax.grad`.

    What asks for a value (a check, a stopping rule, a choice of route) is left out then. Inside `jax.jit`
    every array of JAX counts, also one from outside: what is calculated from it has no value there.

    >>> import numpy as np
    >>> is_traced(np.ones(2))
    False
    """
    jax: Any = sys.modules.get("jax")
    if jax is None:
        return False
    ours = [array for array in arrays if isinstance(array, jax.Array)]
    return any(isinstance(array, jax.core.Tracer) for array in ours) or (bool(ours) and _compiles(jax))


def _compiles(jax: Any) -> bool:
    """Whether an operation of JAX is recorded, as inside `jax.jit`, rather than carried out."""
    return isinstance(jax.lax.neg(np.float32(0)), jax.core.Tracer)


@contextmanager
def values_needed(by: str, remedy: str) -> Iterator[None]:
    """Inside it, or in a function it decorates, what asks a traced array for a value raises our error.

    Raises:
        UnsupportedError: with `by`, which names what makes choices by values.
    """
    try:
        yield
    except (TypeError, IndexError) as problem:
        if UNKNOWN_VALUES.isdisjoint(c.__name__ for c in type(problem).__mro__):
            raise
        raise UnsupportedError(
            f"{by} makes choices by values, which a traced array of JAX does not have.", remedy
        ) from problem


UNKNOWN_VALUES = {
    "ConcretizationTypeError",
    "NonConcreteBooleanIndexError",
    "TracerArrayConversionError",
    "TracerIntegerConversionError",
}
"""The errors of JAX where a traced array is asked for a value."""


def constant(x: Array) -> Array:
    """`x`, with no gradient flowing through it.

    >>> import torch
    >>> constant(torch.ones(2, requires_grad=True)).requires_grad
    False
    """
    if isinstance(x, torch.Tensor):
        return x.detach()
    return importlib.import_module("jax.lax").stop_gradient(x) if is_traced(x) else x


def is_chunked(x: Array) -> bool:
    """Whether `x` is a Dask array: chunks that are computed when asked for, together perhaps above memory."""
    return bool(api.is_dask_array(x))


def device_of(x: Array) -> Any:
    """The device of `x`, to make other arrays beside it; None where the library decides it by itself.

    >>> import torch
    >>> device_of(torch.ones(2))
    device(type='cpu')
    """
    return getattr(x, "device", None)


def is_complex(x: Array) -> bool:
    """Whether the entries of `x` are complex."""
    return bool(namespace(x).isdtype(x.dtype, "complex floating"))


def is_floating(x: Array) -> bool:
    """Whether the entries of `x` are real or complex floating-point numbers."""
    return bool(namespace(x).isdtype(x.dtype, ("real floating", "complex floating")))


def compute_dtype(x: Array) -> DType:
    """The dtype to calculate in: that of `x`, but float32 at least.

    float16, bfloat16 and 8-bit floats give float32; integers and booleans give the default float of the
    library.

    >>> import torch
    >>> compute_dtype(torch.ones(2, dtype=torch.bfloat16))
    torch.float32
    """
    xp = namespace(x)
    if not is_floating(x):
        return xp.asarray(0.0).dtype
    if xp.finfo(x.dtype).bits >= 32:
        return x.dtype
    return xp.complex64 if is_complex(x) else xp.float32


def to_compute(x: Num[Array, "..."]) -> Float[Array, "..."]:
    """`x` in its `compute_dtype`; `x` itself where it has it already."""
    return cast(x, compute_dtype(x))


def cast(x: Num[Array, "..."], dtype: DType) -> Num[Array, "..."]:
    """`x` in `dtype`, without a copy where it has it already."""
    return x if x.dtype == dtype else namespace(x).astype(x, dtype)


def cast_like(x: Float[Array, "..."], like: Num[Array, "..."]) -> Float[Array, "..."]:
    """`x` in the dtype of `like`: the way back from `to_compute`.

    A real `x`, such as singular values, stays real where `like` is complex. Where `like` holds integers,
    `x` keeps its own dtype.

    >>> import numpy as np
    >>> cast_like(np.ones(2), np.ones(2, dtype=np.complex64)).dtype
    dtype('float32')
    """
    if not is_floating(like):
        return x
    return cast(x, like.dtype if is_complex(x) else real_dtype(like))


def real_dtype(x: Num[Array, "..."]) -> DType:
    """The dtype of the real part of `x`."""
    xp = namespace(x)
    if not is_complex(x):
        return x.dtype
    return xp.float32 if x.dtype == xp.complex64 else xp.float64


def epsilon(x: Float[Array, "..."]) -> float:
    """The spacing of the floating-point numbers of `x` at one: 1.2e-7 in float32, 2.2e-16 in float64."""
    return float(namespace(x).finfo(x.dtype).eps)


def conjugate(x: Num[Array, "..."]) -> Num[Array, "..."]:
    """The complex conjugate; a real array itself."""
    return namespace(x).conj(x) if is_complex(x) else x


def adjoint(matrix: Num[Array, "*stack m n"]) -> Num[Array, "*stack n m"]:
    """The conjugate transpose, of each matrix of a stack; a view where they are real."""
    return conjugate(namespace(matrix).matrix_transpose(matrix))


def root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root, 0 of what is negative, with a derivative of 0 where it is 0 rather than infinity.

    >>> import torch
    >>> x = torch.zeros(1, requires_grad=True)
    >>> torch.autograd.grad(root(x).sum(), x)[0]
    tensor([0.])
    """
    xp = namespace(x)
    positive = x > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, x, xp.ones_like(x))), xp.zeros_like(x))


def lengths(x: Num[Array, "..."], axis: int) -> Float[Array, "..."]:
    """The norms of the vectors along an axis, with the derivative of `root` at zeros.

    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> torch.autograd.grad(lengths(x, axis=1).sum(), x)[0]
    tensor([[0., 0.]])
    """
    xp = namespace(x)
    parts = [xp.real(x), xp.imag(x)] if is_complex(x) else [x]
    return root(sum(xp.sum(part * part, axis=axis) for part in parts))


def integer_dtype(x: Array) -> DType:
    """The default integers of the library of `x`: of 64 bits, but where JAX has them off.

    >>> integer_dtype(torch.ones(2))
    torch.int64
    """
    return namespace(x).asarray(0).dtype


def check_finite(x: Num[Array, "..."], name: str) -> None:
    """Refuse an array that holds NaN or infinite entries; `name` is what the message calls it.

    Reads the whole array, and waits for the device to have done so. Traced arrays pass.

    Raises:
        WeightError: if an entry is NaN or infinite.

    >>> import numpy as np
    >>> check_finite(np.array([1.0, np.nan]), "fc.weight")
    Traceback (most recent call last):
    tenfold.core.errors.WeightError: 'fc.weight' has 1 entry of 2 that is NaN or infinite.
    A decomposition of it would hold nothing else. Repair it, or leave this weight out.
    """
    xp = namespace(x)
    if not is_floating(x) or is_traced(x) or _has_finite_sum(x) or bool(xp.all(xp.isfinite(x))):
        return
    bad = _count(~xp.isfinite(x))
    raise WeightError(
        f"'{name}' has {bad} {'entry' if bad == 1 else 'entries'} of {api.size(x)} that "
        f"{'is' if bad == 1 else 'are'} NaN or infinite.",
        "A decomposition of it would hold nothing else. Repair it, or leave this weight out.",
    )


def _has_finite_sum(x: Num[Array, "..."]) -> bool:
    """Whether the sum is finite; then all entries are, and no array of flags was written to see it."""
    xp = namespace(x)
    with np.errstate(all="ignore"):
        return bool(xp.isfinite(xp.sum(x)))


def _count(mask: Bool[Array, "..."]) -> int:
    xp = namespace(mask)
    return int(xp.sum(xp.astype(mask, integer_dtype(mask))))
