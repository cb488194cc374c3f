"""An algorithm is its options: a frozen dataclass that is called with a tensor and returns a fit."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch

from tenfold.core import chunked
from tenfold.core.arrays import (
    Array,
    check_finite,
    is_chunked,
    is_complex,
    is_traced,
    namespace,
    root,
    to_compute,
    values_needed,
)
from tenfold.core.entries import Entries
from tenfold.core.errors import ConvergenceWarning, OptionError, RankError, ShapeError, UnsupportedError
from tenfold.core.network import Network
from tenfold.core.noise import as_generator
from tenfold.core.pieces import frobenius
from tenfold.core.registry import Registry
from tenfold.core.trees import register_jax
from tenfold.decompose.levelling import exponent_of, levelled
from tenfold.formats import Format, Ranks
from tenfold.formats.rounding import check_tolerance as check_tolerance
from tenfold.formats.scaling import narrowed

F = TypeVar("F", bound=Format)


@dataclass(frozen=True)
class Fit(Generic[F]):
    """The result of a decomposition.

    `error` is the true relative error ‖tensor - value‖ / ‖tensor‖ (0 for a zero tensor), computed from the
    residual or from discarded singular values before `value` is cast to the tensor's dtype; `trace` holds the
    error after each step of an iterative method. A pytree of JAX; what a function under `jax.jit` returns has
    arrays in the place of numbers.
    """

    value: F
    error: float
    steps: int = 1
    converged: bool = True
    trace: tuple[float, ...] = ()


register_jax(
    Fit,
    lambda fit: ((fit.value, fit.error, fit.converged, fit.trace), fit.steps),
    lambda steps, leaves: _fit_of(steps, *leaves),
)


def _fit_of(steps: int, value: Any, error: float, converged: bool, trace: tuple[float, ...]) -> Fit[Any]:
    return Fit(value, error, steps, converged, trace)


class Method(ABC, Generic[F]):
    """Base class of all methods; concrete ones are frozen dataclasses of their options."""

    format: ClassVar[type[Format]]
    tolerant: ClassVar[bool] = False
    """Whether ranks may be left out because the method has a tolerance."""
    exact: ClassVar[bool] = True
    """Whether a tensor that has the ranks asked for is found, and no ranks above those that are needed."""
    accepts: ClassVar[tuple[type[Entries], ...]] = ()
    """What it takes beside dense tensors: `Sparse`, `Incomplete`."""
    levels: ClassVar[bool] = False
    """Whether it takes powers of the norm, so that very large and very small tensors are scaled for it."""
    streams: ClassVar[bool] = False
    """Whether it works on Dask arrays of any size, pass by pass: it then has a method `_stream`."""

    def __call__(
        self, tensor: Array | Entries, ranks: Ranks | None = None, *, generator: Any = None
    ) -> Fit[F]:
        """Decompose `tensor`; ranks above what their bonds can carry are cut.

        Calculates in float32 at least and returns factors in the library, device and dtype of `tensor`.
        `generator` is a seed or a generator of the array's library. Gradients flow from the factors to a
        tensor that asks for them; the error is a plain number. A `ConvergenceWarning` says that an iterative
        method has stopped early.

        Under `jax.jit`, `jax.grad` and `jax.vmap` nothing is checked that would need values, the error is a
        traced array, ranks must be given as numbers, and iterative methods go on for `max_steps`.

        A Dask array is computed into memory if it has at most 512 MB; larger ones go through the methods
        that have `streams`, in several passes over the chunks. Factors are Dask arrays again.

        Raises:
            WeightError: if the tensor holds NaN or infinite entries.
            RankError: if the format cannot have these ranks, or if they are missing.
            UnsupportedError: for sparse or incomplete tensors, if the method takes none; for a large Dask
                array, if the method cannot stream; for a traced array, if it has to choose by values.
        """
        found = self.fit(tensor, ranks, generator=generator)
        if found.converged is False:
            warnings.warn(self._unconverged(found), ConvergenceWarning, stacklevel=2)
        return found

    def fit(self, tensor: Array | Entries, ranks: Ranks | None = None, *, generator: Any = None) -> Fit[F]:
        """As calling the method, without the warning: for those who read `converged`."""
        if is_chunked(self._entries(tensor)):
            return self._fit_chunked(tensor, ranks, generator)
        entries = self._entries(tensor)
        check_finite(entries, "the tensor")
        _check_shape(tensor.shape)
        network = self._network(tuple(tensor.shape), ranks)
        computed = tensor.map(to_compute) if isinstance(tensor, Entries) else to_compute(tensor)
        stream = as_generator(generator, like=entries)
        exponent = exponent_of(computed) if self.levels else 0
        run = self._fit_traced if is_traced(entries) else self._fit
        fit = run(levelled(computed, exponent), network, stream)
        if exponent:
            whole: F = fit.value * 2.0**exponent  # type: ignore[assignment]
            fit = replace(fit, value=whole)
        return replace(fit, value=in_dtype_of(entries, fit.value).map(lambda f: _of_its_own(f, entries)))

    def _fit_chunked(self, tensor: Array | Entries, ranks: Ranks | None, generator: Any) -> Fit[F]:
        """`fit` of a Dask array: in memory where it fits, else by `_stream`."""
        entries = self._entries(tensor)
        size = chunked.size_of(entries)
        generator = chunked.load_generator(generator)
        if size <= chunked.IN_MEMORY:
            fit = self.fit(_loaded(tensor), ranks, generator=generator)
        elif self.streams and not isinstance(tensor, Entries):
            _check_shape(tensor.shape)
            fit = self._stream(
                tensor, self._network(tensor.shape, ranks), as_generator(generator, like=np.zeros(()))
            )
        else:
            able = [known for known in methods if methods[known].streams]
            raise UnsupportedError(
                f"{type(self).__name__} takes a Dask array into memory, but this one has {size:,} bytes, "
                f"more than {chunked.IN_MEMORY:,}.",
                f"Compute it yourself if you have the memory, or take one that streams: {', '.join(able)}.",
            )
        return replace(fit, value=in_dtype_of(entries, fit.value).map(chunked.store))

    def _stream(self, tensor: Array, network: Network, generator: Any) -> Fit[F]:
        """As `_fit`, for a Dask array larger than memory; factors may be NumPy or Dask arrays.

        `generator` is one of NumPy.
        """
        raise NotImplementedError

    def _fit_traced(self, tensor: Array, network: Network, generator: Any) -> Fit[F]:
        """`_fit` of a traced array, with an error of ours where it needs a value."""
        remedy = "Call it outside jit, grad and vmap, or use a method of fixed steps, such as STHOSVD."
        with values_needed(str(self), remedy):
            return self._fit(tensor, network, generator)

    def _entries(self, tensor: Array | Entries) -> Array:
        """The array of the tensor's entries, all or those listed."""
        if not isinstance(tensor, Entries):
            return tensor
        if not isinstance(tensor, self.accepts):
            kind, name = type(tensor).__name__.lower(), type(self).__name__
            able = [known for known in methods if isinstance(tensor, methods[known].accepts)]
            raise UnsupportedError(
                f"{name} takes no {kind} tensors.", f"Methods that do: {', '.join(able) or 'none'}."
            )
        return tensor.values

    def _unconverged(self, found: Fit[F]) -> str:
        return (
            f"{type(self).__name__} stopped after {found.steps} steps with a relative error of "
            f"{found.error:.3g}, not converged. Raise max_steps, loosen tol, or use another start; "
            "`trace` of the fit shows how the error went."
        )

    def _network(self, shape: Sequence[int], ranks: Ranks | None) -> Network:
        if ranks is not None:
            return self.format.skeleton(shape, ranks, **self._static())
        if not self.tolerant or getattr(self, "tol", 0.0) <= 0:
            name = type(self).__name__
            hint = f"Give ranks, or a tolerance: {name}(tol=1e-2)." if self.tolerant else "Give ranks."
            raise RankError(f"{name} came without ranks.", hint)
        return self.format.full(shape, **self._static())

    def _static(self) -> Mapping[str, Any]:
        """The options of the format's graph, such as a dimension tree, by name."""
        return {}

    @abstractmethod
    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[F]:
        """The algorithm: `network` holds the cut ranks, which bound those that a tolerance would take."""


methods: Registry[type[Method[Any]]] = Registry("method")
"""The registered methods; `methods["hooi"]` is a class."""


def _of_its_own(factor: Array, tensor: Array) -> Array:
    """The factor, copied if it lies in the memory of the tensor, as a core does that nothing was cut from."""
    if isinstance(factor, np.ndarray):
        return factor.copy() if np.may_share_memory(factor, tensor) else factor
    if not isinstance(factor, torch.Tensor):
        return factor
    try:
        shared = factor.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    except RuntimeError:  # transformed by torch.func, without memory
        return factor
    return factor.clone() if shared and not factor.is_meta else factor


def in_dtype_of(tensor: Array, value: F) -> F:
    """The value with factors in the dtype of the tensor that it was fitted to, all of them finite."""
    narrow = iter(narrowed(value.factors, tensor))
    return value.with_factors([None if s is None else next(narrow) for s in value.slots])


def _loaded(tensor: Array | Entries) -> Array | Entries:
    if not isinstance(tensor, Entries):
        return chunked.load(tensor)
    return type(tensor)(chunked.load(tensor.indices), chunked.load(tensor.values), tensor.shape)


def _check_shape(shape: Sequence[int]) -> None:
    if 0 in shape or len(shape) < 1:
        raise ShapeError(f"a tensor of shape {tuple(shape)} cannot be decomposed.", "Give it entries.")


def number(x: Array) -> float:
    """The real part of an array without axes, as a Python float that no gradient flows through.

    A traced array stays one, and keeps its gradient.
    """
    x = namespace(x).real(x) if is_complex(x) else x
    if is_traced(x):
        return x
    return float(x.detach() if isinstance(x, torch.Tensor) else x)


def norm(x: Array) -> float:
    """Frobenius norm as a Python float; of a traced array a traced one, whose gradient at 0 is 0."""
    if not is_traced(x):
        return frobenius(x)
    xp = namespace(x)
    return root(number(xp.sum(xp.conj(x) * x)))


def relative(error: float, whole: float) -> float:
    """`error / whole`, and 0 where the whole is 0."""
    if is_traced(error, whole):
        xp = namespace(*(x for x in (error, whole) if is_traced(x)))
        return xp.where(whole > 0, error / xp.where(whole > 0, whole, 1.0), 0.0)
    return error / whole if whole > 0 else 0.0


def settled(condition: Any) -> bool:
    """Whether an iteration may stop: never where the condition is traced, which makes its steps fixed.

    >>> settled(1e-9 < 1e-6)
    True
    """
    return not is_traced(condition) and bool(condition)


def check_steps(steps: int) -> None:
    """Raise OptionError unless steps is a whole number of at least 1."""
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise OptionError(f"max_steps came as {steps!r}.", "Give a whole number of 1 or more.")
