"""The laws of a decomposition. Each function states one; `check_method` runs them all."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tenfold.core.arrays import Array, cast, namespace
from tenfold.core.errors import WeightError
from tenfold.core.network import Network
from tenfold.core.noise import normal
from tenfold.decompose import Fit, Method
from tenfold.testing.compare import assert_equal, to_numpy, tolerance
from tenfold.testing.formats import SHAPES, holds

SLACK = 1e-6
"""By how much of the tensor's norm an iterative method may be worse at a higher rank."""


def check_method(method: Method[Any], *, like: Array | None = None, exact: Method[Any] | None = None) -> None:
    """Raise AssertionError unless `method` obeys every law; `like` says library and device, in float64.

    `exact` is the method with options under which it converges to full precision, if not the default ones.

    >>> from tenfold.decompose import HOSVD
    >>> check_method(HOSVD())
    """
    like = np.zeros(()) if like is None else like
    exact = exact or method
    for order in (o for o in SHAPES if holds(method.format, o)):
        noise = normal(SHAPES[order], like=like, generator=order)
        if exact.exact:
            check_recovery(exact, order, like)
        for law in LAWS:
            law(method, noise)
        check_monotone(exact, noise)
        check_full_rank(exact, noise)
    check_dtypes(method, like)


def fit(method: Method[Any], tensor: Array, ranks: Any) -> Fit[Any]:
    """Run with a seed of its own."""
    return method.fit(tensor, ranks, generator=0)


def true_error(tensor: Array, found: Fit[Any]) -> float:
    """‖tensor - value‖ / ‖tensor‖ in float64."""
    dense = to_numpy(tensor)
    return float(np.linalg.norm(dense - to_numpy(found.value.dense())) / np.linalg.norm(dense))


def name(method: Method[Any]) -> str:
    """The method's name for messages."""
    return type(method).__name__


def check_recovery(method: Method[Any], order: int, like: Array) -> None:
    """A tensor of some rank is found exactly at that rank."""
    tensor = method.format.random(SHAPES[order], 2, like=like, generator=1).dense()
    error = true_error(tensor, fit(method, tensor, 2))
    assert error < 1e-10, f"{name(method)} misses a tensor of rank 2 and order {order} by {error:.1e}"


def check_reported_error(method: Method[Any], tensor: Array) -> None:
    """The reported error is the true one, and the fit has the shape, dtype and ranks that were asked for."""
    found = fit(method, tensor, 2)
    assert_equal(
        np.asarray(found.error), true_error(tensor, found), f"{name(method)}: the error that it reports"
    )
    assert found.value.shape == tuple(tensor.shape), (
        f"{name(method)} changes the shape to {found.value.shape}"
    )
    assert found.value.dtype == tensor.dtype, f"{name(method)} changes the dtype to {found.value.dtype}"
    assert max(found.value.ranks.values(), default=0) <= 2, (
        f"{name(method)} exceeds the ranks: {found.value.ranks}"
    )
    assert isinstance(found.error, float), f"{name(method)} reports an error that is no float"


def check_monotone(method: Method[Any], tensor: Array) -> None:
    """The error does not grow with the rank."""
    errors = [fit(method, tensor, rank).error for rank in (1, 2, 3, 4)]
    grows = any(b > a + SLACK for a, b in itertools.pairwise(errors))
    assert not grows, f"{name(method)}: the error grows with the rank: {errors}"


def check_full_rank(method: Method[Any], tensor: Array) -> None:
    """Ranks above what the tensor can have are cut, and at these nothing is lost."""
    found = fit(method, tensor, 10**6)
    full = method.format.full(tuple(tensor.shape)).ranks
    law = f"{name(method)} at full rank"
    ranks = found.value.ranks
    fits = ranks == full if method.exact else all(ranks[b] <= full[b] for b in full)
    assert fits, f"{law} has ranks {ranks} instead of {full}"
    assert found.error < 1e-8, f"{law} has error {found.error:.1e}"


def check_bounds(method: Method[Any], tensor: Array) -> None:
    """No better than the best at each bond; SVD-type methods no worse than all bonds together.

    A bond whose removal parts the modes in two discards at least the small singular values of that unfolding.
    """
    found = fit(method, tensor, 2)
    tails = list(discarded(tensor, found.value.network))
    square = found.error**2 * float(np.linalg.norm(to_numpy(tensor))) ** 2
    if tails:
        assert square >= max(tails) * (1 - 1e-9) - 1e-12, f"{name(method)}: error below the best possible"
    if tails and method.tolerant:
        assert square <= sum(tails) * (1 + 1e-9) + 1e-12, f"{name(method)}: {square} exceeds {sum(tails)}"


def discarded(tensor: Array, network: Network) -> Iterator[float]:
    """For each bond that parts the modes in two, the sum of squared singular values beyond its size, of all
    slices if there are any."""
    dense = to_numpy(tensor)
    for b in network.bonds:
        parts = network.cut(b)
        if len(parts) == 2:
            stack, rows, columns = ([network.modes.index(m) for m in p] for p in (network.slices, *parts))
            shape = [math.prod(dense.shape[k] for k in axes) for axes in (stack, rows, columns)]
            s = np.linalg.svd(dense.transpose(stack + rows + columns).reshape(shape), compute_uv=False)
            yield float(np.sum(s[:, network.size_of[b] :] ** 2))


def check_tolerance(method: Method[Any], tensor: Array) -> None:
    """A relative error `tol` is kept where no ranks are given; exact methods find the ranks of a tensor."""
    if not method.tolerant:
        return
    for tol in (0.5, 0.1, 1e-3):
        found = fit(with_tolerance(method, tol), tensor, None)
        error = true_error(tensor, found)
        assert error <= tol * (1 + 1e-9), f"{name(method)}(tol={tol}) has error {error}"
    low = fit(method, tensor, 2).value
    again = fit(with_tolerance(method, 1e-8), low.dense(), None).value
    assert again.ranks == low.ranks or not method.exact, (
        f"{name(method)}(tol=1e-8) finds ranks {again.ranks} instead of {low.ranks}"
    )


def with_tolerance(method: Method[Any], tol: float) -> Method[Any]:
    """The same method with another tolerance."""
    changed: Method[Any] = dataclasses.replace(method, tol=tol)  # type: ignore[type-var]
    return changed


def check_seed(method: Method[Any], tensor: Array) -> None:
    """The same seed gives the same factors."""
    first, second = (fit(method, tensor, 2) for _ in range(2))
    for a, b in zip(first.value.factors, second.value.factors, strict=True):
        assert_equal(a, b, f"{name(method)} repeats with its seed", 0.0)


def check_not_finite(method: Method[Any], tensor: Array) -> None:
    """NaN and infinity are refused."""
    for bad in (float("nan"), float("inf")):
        spoilt = namespace(tensor).where(tensor == namespace(tensor).max(tensor), bad, tensor)
        try:
            fit(method, spoilt, 2)
        except WeightError:
            continue
        raise AssertionError(f"{name(method)} accepts a tensor with {bad}")


def check_zero(method: Method[Any], tensor: Array) -> None:
    """A zero tensor is itself, with error 0."""
    found = fit(method, tensor * 0, 2)
    assert found.error == 0.0, f"{name(method)} reports error {found.error} for a zero tensor"
    assert_equal(found.value.dense(), tensor * 0, f"{name(method)} of a zero tensor", 0.0)


def check_scale(method: Method[Any], tensor: Array) -> None:
    """Tensors of tiny and of huge entries lose the same: in float32, their squares under- and overflow."""
    tensor = cast(tensor, namespace(tensor).float32)
    errors = []
    for power in (2.0**-96, 2.0**62):
        found = fit(method, tensor * power, 2)
        law = f"{name(method)} of a tensor times {power} reports error {found.error}"
        assert abs(found.error - true_error(tensor * power, found)) < 1e-4, law
        errors.append(found.error)
    assert abs(errors[0] - errors[1]) < 1e-2, f"{name(method)} of tiny and huge tensors has errors {errors}"


def check_views(method: Method[Any], tensor: Array) -> None:
    """The memory of a tensor does not matter: a transposed view gives what its copy gives."""
    xp = namespace(tensor)
    view = xp.permute_dims(tensor, tuple(reversed(range(tensor.ndim))))
    packed = xp.reshape(xp.concat([xp.reshape(view, (-1,))]), view.shape)
    values = [fit(method, x, 2).value.dense() for x in (view, packed)]
    assert_equal(values[0], values[1], f"{name(method)} of a view", 1e-7)


def check_gradients(method: Method[Any], tensor: Array) -> None:
    """Tensors that require gradients pass without warnings; SVD-type methods have the right gradients."""
    if not isinstance(tensor, torch.Tensor):
        return
    leaf = tensor.detach().clone().requires_grad_()
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (gradient,) = torch.autograd.grad(fit(method, leaf, 2).value.dense().sum(), leaf)
    finally:
        torch.set_warn_always(always)
    assert bool(torch.isfinite(gradient).all()), f"{name(method)}: the gradient is not finite"
    if method.tolerant:
        right = torch.autograd.gradcheck(lambda x: fit(method, x, 2).value.dense(), leaf, fast_mode=True)
        assert right, f"{name(method)}: the gradient differs from finite differences"


def check_dtypes(method: Method[Any], like: Array) -> None:
    """Other dtypes keep their dtype, and the reported error is true to their accuracy."""
    xp, order = namespace(like), max(o for o in SHAPES if o < 4 and holds(method.format, o))
    dtypes = [xp.float32, xp.complex64, xp.complex128]
    dtypes += [torch.bfloat16, torch.float16] if isinstance(like, torch.Tensor) else []
    for dtype in dtypes:
        tensor = normal(SHAPES[order], like=cast(like, dtype), generator=2)
        found = fit(method, tensor, 2)
        law = f"{name(method)} in {dtype}"
        assert found.value.dtype == dtype, f"{law} gives {found.value.dtype}"
        assert_equal(
            np.asarray(found.error), true_error(tensor, found), f"{law}: the error", tolerance(tensor)
        )


LAWS: tuple[Callable[[Method[Any], Array], None], ...] = (
    check_reported_error,
    check_bounds,
    check_tolerance,
    check_seed,
    check_not_finite,
    check_zero,
    check_scale,
    check_views,
    check_gradients,
)
