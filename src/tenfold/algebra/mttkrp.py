"""The matricised tensor times Khatri-Rao product (MTTKRP), the one costly step of every CP algorithm.

    G[i, r] = Σ X[…, i, …] A₀[·, r] A₁[·, r] … over all modes but n

Multiplying the unfolding with the explicit Khatri-Rao product of all other factors needs R times the
product of their sizes. Here one matrix product sums over a block of modes at either end of the tensor,
which needs no copy of it, and leaves a partial result of R times the other sizes; the remaining modes are
summed one by one. Every block costs the same multiplications, so the block is chosen which needs the least
memory (Phan, Tichavský & Cichocki 2013; Vannieuwenhoven, Meerbergen & Vandebril 2015). Where that is still
more than `max_bytes`, the components are taken a few at a time.
"""

from collections.abc import Iterator, Sequence
from math import prod

from jaxtyping import Num

from tenfold.algebra.partial_sums import (
    all_but_each,
    best_block,
    best_split,
    block_elements,
    sum_block,
    sum_others,
)
from tenfold.algebra.unfolding import check_mode
from tenfold.core.arrays import Array, namespace
from tenfold.core.errors import ShapeError

LEAST_BYTES = 2**20
"""Intermediates of this size are always allowed."""


def mttkrp(
    tensor: Num[Array, "*shape"],
    factors: Sequence[Num[Array, "_ r"]],
    mode: int,
    *,
    max_bytes: int | None = None,
) -> Num[Array, "i r"]:
    """`unfold(tensor, mode) @ khatri_rao(all factors but that of the mode)`, without the large intermediate.

    Beside the tensor it holds R (b + size / b) numbers, with the b among the sizes of the possible blocks
    that makes this least: for shape (512, 512, 9) at most 5120 R, where the explicit product has up to
    262144 R. (The block can be all other modes, as for mode 0 of that shape, where it is the smallest.) Where
    this exceeds `max_bytes`, by default those of the tensor, components are summed in several rounds. A
    tensor that is not contiguous is copied once. Complex factors are not conjugated. The factor of the mode
    itself is not read, but for its number of columns where the order is 1.

    Raises:
        ShapeError: if the tensor has no such mode, or a factor does not fit.

    >>> import numpy as np
    >>> mttkrp(np.ones((2, 3, 4)), [np.ones((2, 5)), np.ones((3, 5)), np.ones((4, 5))], 1).shape
    (3, 5)
    """
    mode = check_mode(tensor.ndim, mode)
    check_factors(tensor, factors)
    if tensor.ndim == 1:
        return _of_vector(tensor, factors[0])
    block = best_block(tuple(tensor.shape), mode)
    some_at_a_time = rounds(tensor, factors, block_elements(tuple(tensor.shape), *block), max_bytes)
    return _joined([_with_block(tensor, some, mode, *block) for some in some_at_a_time])


def _with_block(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], mode: int, first: int, last: int
) -> Num[Array, "i r"]:
    """`mttkrp` by way of the sum over the modes [first, last)."""
    partial = sum_block(tensor, factors, first, last)
    start, stop = (last, tensor.ndim) if first == 0 else (0, first)
    return sum_others(partial, factors[start:stop], mode - start).T


def mttkrps(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], *, max_bytes: int | None = None
) -> list[Num[Array, "_ r"]]:
    """`mttkrp` for every mode, with two passes over the tensor instead of one for each mode.

    The modes are split in two halves; each half is summed once and the partial result serves all modes of
    the other, recursively. Memory is that of `mttkrp` for the mode that needs most, and the results, with
    `max_bytes` as there. All factors are read at their present values: this is for gradients, whereas ALS
    changes a factor before it needs the next.

    Raises:
        ShapeError: if a factor does not fit.

    Source: Phan, Tichavský & Cichocki 2013.

    >>> import numpy as np
    >>> [g.shape for g in mttkrps(np.ones((2, 3, 4)), [np.ones((2, 5)), np.ones((3, 5)), np.ones((4, 5))])]
    [(2, 5), (3, 5), (4, 5)]
    """
    check_factors(tensor, factors)
    if tensor.ndim == 1:
        return [_of_vector(tensor, factors[0])]
    split = best_split(tuple(tensor.shape))
    some_at_a_time = rounds(tensor, factors, block_elements(tuple(tensor.shape), 0, split), max_bytes)
    parts = [_with_split(tensor, some, split) for some in some_at_a_time]
    return [_joined(list(columns)) for columns in zip(*parts, strict=True)]


def _with_split(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], split: int
) -> list[Num[Array, "_ r"]]:
    """`mttkrps` by way of the sums over the modes before and after `split`."""
    left = all_but_each(sum_block(tensor, factors, split, tensor.ndim), factors[:split])
    right = all_but_each(sum_block(tensor, factors, 0, split), factors[split:])
    return [leaf.T for leaf in (*left, *right)]


def mttkrp_sweep(
    tensor: Num[Array, "*shape"], factors: list[Num[Array, "_ r"]], *, max_bytes: int | None = None
) -> Iterator[tuple[int, Num[Array, "_ r"]]]:
    """`mttkrp` mode by mode for alternating algorithms, with two passes over the tensor for all modes.

    Yields (mode, product) for modes 0, 1, …; put the renewed factor into the list `factors` before the next
    one is asked for. As in `mttkrps`, the modes fall in two halves; each half is summed once, with the other
    half's factors as they are then. Where the sum of a half would exceed `max_bytes`, every mode has a pass,
    or more, of its own.

    Source: dimension trees, Phan, Tichavský & Cichocki 2013, section III.

    >>> import numpy as np
    >>> factors = [np.ones((2, 5)), np.ones((3, 5)), np.ones((4, 5))]
    >>> for mode, product in mttkrp_sweep(np.ones((2, 3, 4)), factors):
    ...     factors[mode] = product / 12
    >>> [f.shape for f in factors], float(factors[0][0, 0])
    ([(2, 5), (3, 5), (4, 5)], 1.0)
    """
    check_factors(tensor, factors)
    if tensor.ndim == 1:
        yield 0, _of_vector(tensor, factors[0])
        return
    split = best_split(tuple(tensor.shape))
    if len(rounds(tensor, factors, block_elements(tuple(tensor.shape), 0, split), max_bytes)) > 1:
        yield from ((mode, mttkrp(tensor, factors, mode, max_bytes=max_bytes)) for mode in range(tensor.ndim))
        return
    for first, last in ((0, split), (split, tensor.ndim)):
        summed = (split, tensor.ndim) if first == 0 else (0, split)
        partial = sum_block(tensor, factors, *summed)
        for mode in range(first, last):
            yield mode, sum_others(partial, factors[first:last], mode - first).T


def rounds(
    tensor: Num[Array, "*shape"],
    factors: Sequence[Num[Array, "_ r"]],
    elements: int,
    max_bytes: int | None,
) -> list[Sequence[Num[Array, "_ r"]]]:
    """The factors, or a few columns of them at a time: as many as keep within the memory allowed."""
    rank = factors[0].shape[1]
    most = max(1, allowed_bytes(tensor, max_bytes) // max(1, elements * tensor.dtype.itemsize))
    if most >= rank:
        return [factors]
    width = -(-rank // -(-rank // most))
    return [[f[:, start : start + width] for f in factors] for start in range(0, rank, width)]


def allowed_bytes(tensor: Num[Array, "*shape"], max_bytes: int | None) -> int:
    """How much intermediates may hold: what is asked for, or as much as the tensor."""
    size: int = prod(tensor.shape) * tensor.dtype.itemsize
    return max(LEAST_BYTES, size) if max_bytes is None else max_bytes


def _joined(parts: Sequence[Num[Array, "_ _"]]) -> Num[Array, "_ r"]:
    return parts[0] if len(parts) == 1 else namespace(*parts).concat(list(parts), axis=1)


def check_factors(tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]]) -> None:
    """Refuse factors that are not one matrix for each mode, all with the same number of columns.

    >>> import numpy as np
    >>> check_factors(np.ones((2, 3)), [np.ones((2, 5)), np.ones((4, 5))])
    Traceback (most recent call last):
    tenfold.core.errors.ShapeError: factors of shapes (2, 5), (4, 5) do not fit a tensor of shape (2, 3).
    Give one matrix for each mode, as tall as the mode is long, all with as many columns.
    """
    shapes = [tuple(factor.shape) for factor in factors]
    ranks = {shape[1:] for shape in shapes}
    sizes = [shape[:1] for shape in shapes]
    fits = sizes == [(size,) for size in tensor.shape] and len(ranks) == 1 and len(ranks.pop()) == 1
    if not fits:
        raise ShapeError(
            f"factors of shapes {', '.join(map(str, shapes))} do not fit a tensor of shape "
            f"{tuple(tensor.shape)}.",
            "Give one matrix for each mode, as tall as the mode is long, all with as many columns.",
        )


def _of_vector(vector: Num[Array, " i"], factor: Num[Array, "i r"]) -> Num[Array, "i r"]:
    """The empty Khatri-Rao product is a row of ones."""
    return vector[:, None] * namespace(vector).ones_like(factor)
