"""Tensor train of a function of indices, from a small part of its values."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int

from tenfold.core.arrays import (
    Array,
    adjoint,
    device_of,
    epsilon,
    integer_dtype,
    namespace,
    values_needed,
)
from tenfold.core.errors import ConvergenceWarning, OptionError, ShapeError
from tenfold.core.leading import leading
from tenfold.core.network import Network, bond
from tenfold.core.noise import as_generator, normal
from tenfold.core.pieces import frobenius
from tenfold.core.trees import register_jax
from tenfold.decompose.base import Fit, check_steps, check_tolerance, in_dtype_of
from tenfold.decompose.trains.black_box import BlackBox, Function, SpentError, products, random_indices
from tenfold.decompose.trains.maxvol import chosen, maxvol
from tenfold.formats import Ranks, TensorTrain

Indices = Int[Array, "r modes"]
KICK = 2
"""Random directions that are added to every bond when a sweep has not made the train better."""


@dataclass(frozen=True)
class CrossFit(Fit[TensorTrain]):
    """A fit to a function.

    `error` is an *estimate*: ‖f - value‖ / ‖f‖ over `samples` random entries that the fit has not seen. The
    true error cannot be known without all values: a peak that no sample has met is in neither.
    """

    evaluations: int = 0
    samples: int = 0


def _fit_of(counts: Any, leaves: Any) -> CrossFit:
    (steps, evaluations, samples), (value, error, converged, trace) = counts, leaves
    return CrossFit(value, error, steps, converged, trace, evaluations, samples)


register_jax(
    CrossFit,
    lambda fit: ((fit.value, fit.error, fit.converged, fit.trace), (fit.steps, fit.evaluations, fit.samples)),
    _fit_of,
)


@dataclass(frozen=True)
class TTCross:
    """The tensor train of a function f(indices), to a relative error `tol`, by cross approximation.

    For tensors too large to be formed, when any entry can be computed: functions on grids, solutions with
    parameters, probabilities. The function takes an array of indices of shape (n, order) and gives n values.

    Two cores at a time: with index sets I of the modes before and J of those after, the matrix of all
    f(I, i, j, J) is truncated to the rank that the tolerance asks for, and rows of nearly the largest volume
    in its singular vectors extend I by one mode. Sweeps go to and fro until the error on random entries that
    the fit does not see is at most `tol` (`converged`). Where a sweep has not helped, ranks are raised by
    random directions, and local tolerances tightened. Ranks given bound the ranks that are found.

    Stops without converging after `max_steps` half sweeps, when four of them have not helped, as where the
    ranks are bounded, or when the next block would exceed `max_evaluations`; returned is the best train so
    far.

    Cost: O(order n² r²) evaluations and O(order n² r³) operations a sweep, for modes of size n. Where n is
    large, split modes (n = 2 · 2 · …) first. Memory: O(n² r²).

    Source: Savostyanov & Oseledets, 'Fast adaptive interpolation of multi-dimensional arrays in tensor train
    format', 2011; Oseledets & Tyrtyshnikov, 'TT-cross approximation for multidimensional arrays', 2010.

    >>> import numpy as np
    >>> fit = TTCross(tol=1e-8)(lambda i: np.sin(i.sum(axis=1)), (10,) * 20, like=np.zeros(()), generator=0)
    >>> set(fit.value.ranks.values()), fit.error < 1e-8, fit.evaluations < 60_000
    ({2}, True, True)
    """

    tol: float = 1e-6
    max_rank: int = 100
    max_steps: int = 30
    max_evaluations: int = 10**8
    samples: int = 1000

    def __post_init__(self) -> None:
        check_tolerance(self.tol)
        check_steps(self.max_steps)
        if min(self.max_rank, self.max_evaluations, self.samples) < 1:
            raise OptionError(f"{self} has a count below 1.", "Give 1 or more.")

    def __call__(
        self,
        function: Function,
        shape: Sequence[int],
        ranks: Ranks | None = None,
        *,
        like: Array,
        generator: Any = None,
    ) -> CrossFit:
        """The train of `function` over indices from 0 up to `shape`.

        `like` is an array that says the library, dtype and device of indices and values. A
        `ConvergenceWarning` says that `tol` was not reached.

        Raises:
            WeightError: if a value is NaN or infinite.
            ShapeError: if the function does not give one value for each index, or there are no indices.
            OptionError: if the function is complex and `like` is not, or `max_evaluations` are too few.
            UnsupportedError: for traced values, by which it cannot choose.
        """
        found = self.fit(function, shape, ranks, like=like, generator=generator)
        if not found.converged:
            warnings.warn(
                f"TTCross stopped after {found.steps} half sweeps and {found.evaluations} evaluations with "
                f"an error of {found.error:.3g} on random entries. Raise max_rank, max_evaluations or "
                "max_steps, loosen tol, or split large modes.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return found

    def fit(
        self,
        function: Function,
        shape: Sequence[int],
        ranks: Ranks | None = None,
        *,
        like: Array,
        generator: Any = None,
    ) -> CrossFit:
        """As calling it, without the warning: for those who read `converged`."""
        if not shape or min(shape) < 1:
            raise ShapeError(f"a function of indices up to {tuple(shape)} has no values.", "Give it entries.")
        network = TensorTrain.skeleton(shape, self.max_rank if ranks is None else ranks)
        stream = as_generator(generator, like=like)
        box = BlackBox(function, tuple(shape), like, self.max_evaluations)
        try:
            with values_needed(str(self), "Call it outside jit, grad and vmap."):
                return _Cross(self, box, network, stream).run()
        except SpentError as problem:
            raise OptionError(
                f"max_evaluations={self.max_evaluations} end before the first train is complete.",
                f"Give more than {box.count}.",
            ) from problem


class _Cross:
    """One run: the index sets of the modes after, the best train so far, and how the error went."""

    def __init__(self, options: TTCross, box: BlackBox, network: Network, generator: Any) -> None:
        self.options, self.box, self.generator = options, box, generator
        self.bounds = [network.size_of[bond(k)] for k in range(1, len(box.shape))]
        self.tests = random_indices(box.shape, options.samples, like=box.like, generator=generator)
        self.truth = box(self.tests)
        self.local, self.kick = options.tol / 2, 0
        self.after = self._start()

    def _start(self) -> list[Indices]:
        """The tails of the random entry that is largest."""
        seen = random_indices(
            self.box.shape, self.options.samples, like=self.box.like, generator=self.generator
        )
        xp, values = namespace(seen), self.box(seen)
        best = int(xp.argmax(xp.abs(values)))
        return [seen[best : best + 1, k:] for k in range(len(self.box.shape) + 1)]

    def run(self) -> CrossFit:
        """Half sweeps until the error on the tests is small, or all is spent."""
        value = self.half_sweep()
        best, trace = (self.error(value), value), [self.error(value)]
        while not self._done(best[0], trace):
            self._adapt(trace)
            try:
                value = self.half_sweep()
            except SpentError:
                break
            trace.append(self.error(value))
            if trace[-1] <= max(best[0], self.options.tol):
                best = trace[-1], value
        error, value = best[0], in_dtype_of(self.box.like, best[1])
        done = error <= self.options.tol
        return CrossFit(value, error, len(trace), done, tuple(trace), self.box.count, self.options.samples)

    def _done(self, error: float, trace: list[float]) -> bool:
        """Whether the tolerance is met without random directions, or more sweeps are of no use."""
        met = error <= self.options.tol and self.kick == 0
        return met or stuck(trace) or len(trace) >= self.options.max_steps

    def _adapt(self, trace: list[float]) -> None:
        """More directions and tighter local tolerances where a sweep has not helped; fewer once converged."""
        helped = len(trace) < 2 or trace[-1] < 0.5 * trace[-2]
        if trace[-1] <= self.options.tol:
            self.kick = 0
        elif not helped:
            self.kick, self.local = KICK, max(self.local / 2, self.options.tol / 64)

    def error(self, value: TensorTrain) -> float:
        """The relative error on the tests; of a function that is zero on all of them, 0 or 1."""
        found = value.at(self.tests)
        wrong, whole = frobenius(found - self.truth), frobenius(self.truth)
        return wrong / whole if whole > 0 else float(wrong > 0)

    def half_sweep(self) -> TensorTrain:
        """A train from the first mode to the last, as they are read; then they are read the other way."""
        sizes, xp = self.box.sizes, namespace(self.box.like)
        before = [xp.zeros((1, 0), dtype=integer_dtype(self.box.like), device=device_of(self.box.like))]
        order, cores = len(sizes), []
        for k in range(order - 1):
            rows = products(before[k], self.box.mode(k))
            block = self.box.block(rows, products(self.box.mode(k + 1), self.after[k + 2]))
            basis = self._basis(block, k, last=k == order - 2)
            if k == order - 2:
                cores += [basis, adjoint(basis) @ block]
            else:
                picked, coefficients = maxvol(basis)
                before.append(chosen(rows, picked))
                cores.append(coefficients)
        if order == 1:
            cores = [self.box.block(before[0], self.box.mode(0))]
        value = self._train(cores)
        self._turn(before)
        return value

    def _basis(self, block: Array, k: int, *, last: bool) -> Array:
        """The leading left singular vectors that the tolerance asks for, and random ones where stuck."""
        xp = namespace(block)
        bound = self.bounds[::-1][k] if self.box.flipped else self.bounds[k]
        size = frobenius(block)
        bound = min(bound, *block.shape) if size > 0 else 1
        local = max(self.local / len(self.bounds) ** 0.5, 4 * epsilon(block)) * size
        basis, _ = leading(block, 0, bound, local)
        more = 0 if last else min(self.kick, bound - basis.shape[1])
        if more > 0:
            noise = normal((block.shape[0], more), like=block, generator=self.generator)
            basis, _ = xp.linalg.qr(xp.concat([basis, noise], axis=1))
        return basis

    def _train(self, cores: list[Array]) -> TensorTrain:
        """The train of matrices (left mode, right) in the order in which modes are read."""
        xp, sizes, shaped, left = namespace(self.box.like), self.box.sizes, [], 1
        for core, n in zip(cores, sizes, strict=True):
            shaped.append(xp.reshape(core, (left, n, -1)))
            left = core.shape[1]
        if self.box.flipped:
            shaped = [xp.permute_dims(c, (2, 1, 0)) for c in reversed(shaped)]
        if len(shaped) == 1:
            return TensorTrain((shaped[0][0, :, 0],))
        return TensorTrain((shaped[0][0, :, :], *shaped[1:-1], shaped[-1][:, :, 0]))

    def _turn(self, before: list[Indices]) -> None:
        """What came before comes after when modes are read the other way."""
        xp, order = namespace(self.box.like), len(self.box.shape)
        turned = {order - k: xp.flip(rows, axis=1) for k, rows in enumerate(before)}
        self.after = [turned.get(k, rows) for k, rows in enumerate(self.after)]
        self.box.flipped = not self.box.flipped


def stuck(trace: list[float]) -> bool:
    """Whether the last four sweeps have gained less than a tenth of the error before them."""
    return len(trace) > 4 and min(trace[-4:]) > 0.9 * min(trace[:-4])
