"""An algorithm is its options: a frozen dataclass that is called with a tensor and returns a fit."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch

from tenfold.core.arrays import (
    Array,
    as_generator,
    cast_like,
    check_finite,
    is_complex,
    namespace,
    to_compute,
)
from tenfold.core.errors import OptionError, RankError, ShapeError
from tenfold.core.network import Network
from tenfold.core.registry import Registry
from tenfold.formats import Format, Ranks

F = TypeVar("F", bound=Format)


@dataclass(frozen=True)
class Fit(Generic[F]):
    """The result of a decomposition.

    `error` is the true relative error ‖tensor - value‖ / ‖tensor‖ (0 for a zero tensor), computed from the
    residual or from discarded singular values before `value` is cast to the tensor's dtype; `trace` holds the
    error after each step of an iterative method.
    """

    value: F
    error: float
    steps: int = 1
    converged: bool = True
    trace: tuple[float, ...] = ()


class Method(ABC, Generic[F]):
    """Base class of all methods; concrete ones are frozen dataclasses of their options."""

    format: ClassVar[type[Format]]
    tolerant: ClassVar[bool] = False
    """Whether ranks may be left out because the method has a tolerance."""

    def __call__(self, tensor: Array, ranks: Ranks | None = None, *, generator: Any = None) -> Fit[F]:
        """Decompose `tensor`; ranks above what their bonds can carry are cut.

        Calculates in float32 at least and returns factors in the library, device and dtype of `tensor`.
        `generator` is a seed or a generator of the array's library. Gradients flow from the factors to a
        tensor that asks for them; the error is a plain number.

        Raises:
            WeightError: if the tensor holds NaN or infinite entries.
            RankError: if the format cannot have these ranks, or if they are missing.
        """
        check_finite(tensor, "the tensor")
        if 0 in tensor.shape or tensor.ndim < 1:
            raise ShapeError(
                f"a tensor of shape {tuple(tensor.shape)} cannot be decomposed.", "Give it entries."
            )
        network = self._network(tuple(tensor.shape), ranks)
        fit = self._fit(to_compute(tensor), network, as_generator(generator, like=tensor))
        value = fit.value.map(lambda f: cast_like(f, tensor))
        return Fit(value, fit.error, fit.steps, fit.converged, fit.trace)

    def _network(self, shape: Sequence[int], ranks: Ranks | None) -> Network:
        if ranks is not None:
            return self.format.skeleton(shape, ranks)
        if not self.tolerant or getattr(self, "tol", 0.0) <= 0:
            name = type(self).__name__
            hint = f"Give ranks, or a tolerance: {name}(tol=1e-2)." if self.tolerant else "Give ranks."
            raise RankError(f"{name} came without ranks.", hint)
        return self.format.full(shape)

    @abstractmethod
    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[F]:
        """The algorithm: `network` holds the cut ranks, which bound those that a tolerance would take."""


methods: Registry[type[Method[Any]]] = Registry("method")
"""The registered methods; `methods["hooi"]` is a class."""


def number(x: Array) -> float:
    """The real part of an array without axes, as a Python float that no gradient flows through."""
    x = namespace(x).real(x) if is_complex(x) else x
    return float(x.detach() if isinstance(x, torch.Tensor) else x)


def norm(x: Array) -> float:
    """Frobenius norm as a Python float."""
    return number(namespace(x).linalg.vector_norm(x))


def relative(error: float, whole: float) -> float:
    """`error / whole`, and 0 where the whole is 0."""
    return error / whole if whole > 0 else 0.0


def check_tolerance(tol: float) -> None:
    """Raise OptionError unless 0 <= tol < 1."""
    if not 0 <= tol < 1:
        raise OptionError(f"tol came as {tol}.", "Give a relative error from 0 up to 1.")


def check_steps(steps: int) -> None:
    """Raise OptionError unless steps >= 1."""
    if steps < 1:
        raise OptionError(f"max_steps came as {steps}.", "Give 1 or more.")
