"""The laws of a format. Each function states one; `check_format` runs them all."""

import copy
import importlib
import itertools
import math
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from array_api_compat import is_jax_array
from torch.utils import _pytree as pytree

from tenfold.core.arrays import Array, is_complex, namespace
from tenfold.core.errors import RankError
from tenfold.core.noise import normal
from tenfold.formats import Format, Ranks
from tenfold.testing.arithmetic import ARITHMETIC_LAWS
from tenfold.testing.compare import assert_equal, to_numpy
from tenfold.testing.samples import SHAPES, holds, naive, name, partners, samples, whole_modes

__all__ = ["SHAPES", "check_format", "check_value", "holds", "samples", "whole_modes"]

DRAWS = 400
"""Random tensors whose entries show their standard deviation."""


def check_format(
    cls: type[Format], *, like: Array | None = None, orders: Sequence[int] = (2, 3, 4), **static: Any
) -> None:
    """Raise AssertionError unless `cls` obeys every law; `like` says library, device and dtype (float64).

    Options of the graph come by name; with one that fits a single order, such as a tree, give that order.

    >>> from tenfold.formats import formats
    >>> check_format(formats["cp"], orders=(3,))
    """
    like = np.zeros(()) if like is None else like
    held = [order for order in orders if holds(cls, order, **static)]
    assert held, f"{cls.__name__} holds no tensor of the orders {tuple(orders)}"
    for order in held:
        check_clipping(cls, SHAPES[order], **static)
        check_ranks_within(cls, SHAPES[order], **static)
    check_deviation(cls, SHAPES[max((o for o in held if o < 4), default=held[0])], like, **static)
    for value in samples(cls, held, like, **static):
        check_value(value)


def check_value(value: Format) -> None:
    """Raise AssertionError unless this tensor obeys the laws of its format.

    >>> from tenfold.formats import formats
    >>> check_value(formats["tt"].random((3, 4, 2), 2, like=np.zeros(())))
    """
    for law in (*LAWS, *ARITHMETIC_LAWS):
        law(value)


def check_dense(value: Format) -> None:
    """`dense` is the einsum over the graph, and `shape` is its shape."""
    assert_equal(value.dense(), naive(value), f"{name(value)}.dense() equals the einsum over its graph")
    assert value.shape == tuple(value.dense().shape), f"{name(value)}.shape is not that of dense()"


def check_numel(value: Format) -> None:
    """`numel` counts the elements of the factors."""
    stored = sum(math.prod(f.shape) for f in value.factors)
    assert value.numel == stored, f"{name(value)}.numel is {value.numel}, but its factors hold {stored}"


def check_inner(value: Format) -> None:
    """The inner product with every registered format is the dense one; the first is conjugated."""
    for other in partners(value):
        expected = np.vdot(naive(value), naive(other))
        assert_equal(value.inner(other), expected, f"<{name(value)}, {name(other)}> equals the dense one")
    assert_equal(value.norm(), np.linalg.norm(naive(value)), f"{name(value)}.norm() is the Frobenius norm")


def check_indexing(value: Format) -> None:
    """Slices, index arrays and integers commute with `dense`, alone and in turn."""
    array = namespace(*value.factors).asarray([1, 0, 1, 1])
    last = (slice(None),) * (len(value.shape) - 1)
    indices: list[Any] = [
        slice(1, None),
        (slice(None), slice(0, 3, 2)),
        1,
        (..., -1),
        (*last, slice(1, 2)),
        0,
    ]
    for index in [*indices, array, (*last, array), (0,) * len(value.shape)]:
        law = f"{name(value)}[{index}] commutes with dense()"
        assert_equal(value[index].dense(), naive(value)[numpy_index(index)], law)
    assert_equal(value[1:][0].dense(), naive(value)[1], f"{name(value)} can be indexed twice")
    if len(value.shape) > 1:
        assert_equal(
            value[1][1:].dense(), naive(value)[1][1:], f"{name(value)} can be indexed after an integer"
        )


def numpy_index(index: Any) -> Any:
    """The same index for a NumPy array."""
    if isinstance(index, tuple):
        return tuple(numpy_index(i) for i in index)
    return index if isinstance(index, int | slice) or index is ... else to_numpy(index).astype(int)


def check_mode_dot(value: Format) -> None:
    """A matrix or a vector on any mode acts as on the dense tensor; the matrix keeps the format, unless
    several factors carry the mode."""
    for k, n in enumerate(value.shape):
        matrix = normal((3, n), like=value.factors[0], generator=k)
        expected = np.moveaxis(np.tensordot(naive(value), to_numpy(matrix), (k, 1)), -1, k)
        law = f"mode product {k} of {name(value)}"
        product = value.mode_dot(matrix, k)
        assert_equal(product.dense(), expected, law)
        alone = sum(value.network.modes[k] in f for f in value.network.factors) == 1
        assert type(product) is type(value) or not alone, f"{law} with a matrix gives {name(product)}"
        vector = matrix[0, :]
        assert_equal(value.mode_dot(vector, k).dense(), expected.take(0, k), f"{law} with a vector")


def check_copies(value: Format) -> None:
    """`copy`, `pickle`, `map`, `from_factors` and trees give the same format with the same options back."""
    twins = [
        copy.deepcopy(value),
        copy.copy(value),
        pickle.loads(pickle.dumps(value)),
        value.map(lambda f: f),
    ]
    twins.append(type(value).from_factors(value.slots, **value.static))
    twins.append(type(value).from_network(value.network, value.factors, **value.static))
    for trees in tree_libraries(value.factors[0]):
        twins.append(trees.tree_map(lambda leaf: leaf * 1, value))
        leaves = len(trees.tree_leaves(value))
        assert leaves == len(value.factors), f"the tree of {name(value)} has {leaves} leaves"
    for twin in twins:
        assert type(twin) is type(value), f"a copy of {name(value)} is a {name(twin)}"
        assert twin.static == value.static, f"a copy of {name(value)} has the options {twin.static}"
        assert_equal(twin.dense(), value.dense(), f"copies of {name(value)} are equal")


def tree_libraries(array: Array) -> Iterator[Any]:
    """The trees of the library of `array`, if it has any."""
    if isinstance(array, torch.Tensor):
        yield pytree
    elif is_jax_array(array):
        yield importlib.import_module("jax.tree_util")


def check_remains(value: Format) -> None:
    """What an integer leaves is a format itself: indexed, contracted, copied."""
    rest = value[0]
    check_dense(rest)
    check_numel(rest)
    twin = pickle.loads(pickle.dumps(rest)).map(lambda f: 1 * f)
    assert_equal(twin.inner(rest), np.linalg.norm(naive(rest)) ** 2, f"{name(value)}[0] has an inner product")
    for trees in tree_libraries(rest.factors[0]):
        twice = trees.tree_map(lambda leaf: 2 * leaf, rest)
        assert_equal(twice.map(lambda f: f / 2).dense(), rest.dense(), "trees")


def check_gradients(value: Format) -> None:
    """The gradient of `dense` in every factor is that of finite differences (PyTorch, 64 bits)."""
    factors = value.factors
    if not isinstance(factors[0], torch.Tensor) or factors[0].dtype not in (torch.float64, torch.complex128):
        return
    leaves = tuple(f.detach().clone().requires_grad_() for f in factors)
    network = value.network

    def dense(*arrays: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = type(value).from_network(network, arrays, **value.static).dense()
        return result

    assert torch.autograd.gradcheck(dense, leaves, fast_mode=True), f"the gradient of {name(value)}.dense()"


def check_clipping(cls: type[Format], shape: Sequence[int], **static: Any) -> None:
    """Ranks too large are cut to feasible ones, once and for all; the tensor that they hold needs no more.

    A bond between two factors carries no more than either has of axes that the other has not. No bond is
    larger than half of the modes would need, at best, if it were alone.
    """
    network = cls.skeleton(shape, 10**6, **static)
    assert network.clipped() == network, (
        f"{cls.__name__}.skeleton cuts ranks, but not to the end: {network.ranks}"
    )
    for b in network.bonds:
        holders = [f for f in network.factors if b in f]
        common = set(holders[0]).intersection(*holders)
        room = [network.product(tuple(a for a in f if a not in common)) for f in holders]
        law = f"{cls.__name__}: bond {b} cannot need {network.size_of[b]}"
        assert network.size_of[b] <= math.prod(shape) / max(shape), law
        assert len(holders) != 2 or network.size_of[b] <= min(room), law
        assert len(holders) != 2 or network.size_of[b] ** 2 <= math.prod(shape), law


def check_ranks_within(cls: type[Format], shape: Sequence[int], **static: Any) -> None:
    """`ranks_within` never stores more than it may, and never less when it may store more."""
    lowest, most = cls.skeleton(shape, 1, **static).numel, cls.full(shape, **static).numel
    before = 0
    for allowed in sorted({lowest, most + 1, *range(lowest, most, 1 + (most - lowest) // 30)}):
        stored = cls.skeleton(shape, cls.ranks_within(shape, allowed, **static), **static).numel
        law = f"{cls.__name__}.ranks_within({tuple(shape)}, {allowed}) stores {stored}"
        assert stored <= allowed, law
        assert stored >= before, f"{law}, but {before} were stored when less was allowed"
        before = stored
    try:
        cls.ranks_within(shape, lowest - 1, **static)
    except RankError:
        return
    raise AssertionError(
        f"{cls.__name__}.ranks_within accepts {lowest - 1} elements, where ranks of 1 need {lowest}"
    )


def check_deviation(cls: type[Format], shape: Sequence[int], like: Array, **static: Any) -> None:
    """`random(std=s)` has entries of standard deviation s, as many draws show; a seed repeats them."""
    whole = ((ranks, 1.0) for ranks in itertools.islice(whole_modes(cls, shape, **static), 1))
    cases: list[tuple[Ranks, float]] = [(3, 0.5), (5, 3.0), *whole]
    for ranks, std in cases:
        values = (cls.random(shape, ranks, like=like, std=std, generator=k, **static) for k in range(DRAWS))
        draws = [to_numpy(value.dense()) for value in values]
        found = float(np.mean([np.mean(np.abs(x) ** 2) for x in draws])) ** 0.5
        assert 0.85 < found / std < 1.15, (
            f"{cls.__name__}.random(std={std}) has deviation {found:.3f} at ranks {ranks}"
        )
        again = cls.random(shape, ranks, like=like, std=std, generator=3, **static)
        assert_equal(again.dense(), draws[3], f"{cls.__name__}.random repeats with its seed")
        assert is_complex(again.factors[0]) == is_complex(like), f"{cls.__name__}.random changes the dtype"


LAWS = (
    check_dense,
    check_numel,
    check_inner,
    check_indexing,
    check_mode_dot,
    check_copies,
    check_remains,
    check_gradients,
)
