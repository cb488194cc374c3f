"""Sums over some modes of a tensor, every component with its own column of each factor.

The first sum, over a block of modes at either end, is one matrix product and needs no copy of the tensor. It
leaves a partial result, component first, whose modes are then summed one by one from its ends.
"""

from collections.abc import Sequence
from math import prod

from jaxtyping import Num

from tenfold.algebra.products import khatri_rao
from tenfold.core.arrays import Array, namespace


def best_block(shape: tuple[int, ...], mode: int) -> tuple[int, int]:
    """The modes [first, last) at either end to sum first: the block and what it leaves are smallest together.

    >>> best_block((512, 512, 9), 0), best_block((512, 512, 9), 2)
    ((1, 3), (0, 1))
    """
    blocks = [(0, last) for last in range(1, mode + 1)]
    blocks += [(first, len(shape)) for first in range(mode + 1, len(shape))]
    return min(blocks, key=lambda block: block_elements(shape, *block))


def best_split(shape: tuple[int, ...]) -> int:
    """Before which mode to part them such that both halves are small together."""
    return min(range(1, len(shape)), key=lambda split: block_elements(shape, 0, split))


def block_elements(shape: tuple[int, ...], first: int, last: int) -> int:
    """Numbers for each component: the Khatri-Rao product of a block, and what is left when it is summed."""
    return prod(shape[first:last]) + prod(shape[:first]) * prod(shape[last:])


def sum_block(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], first: int, last: int
) -> Num[Array, "r *rest"]:
    """Sum over the modes [first, last) at the start or end of the tensor by one matrix product."""
    xp, shape = namespace(tensor, *factors), tuple(tensor.shape)
    weights = khatri_rao(factors[first:last])
    summed, rank = weights.shape
    if first == 0:
        partial = weights.T @ xp.reshape(tensor, (summed, prod(shape[last:])))
        return xp.reshape(partial, (rank, *shape[last:]))
    unfolded = xp.reshape(tensor, (prod(shape[:first]), summed))
    if first == 1:  # all that is left is one mode, so that the order of the result does not matter
        return (unfolded @ weights).T
    return xp.reshape(weights.T @ unfolded.T, (rank, *shape[:first]))


def sum_others(
    partial: Num[Array, "r *shape"], factors: Sequence[Num[Array, "_ r"]], mode: int
) -> Num[Array, "r i"]:
    """Sum over all modes but one: each component r with its own columns."""
    for factor in reversed(factors[mode + 1 :]):
        partial = _sum_last(partial, factor)
    for factor in factors[:mode]:
        partial = _sum_first(partial, factor)
    return partial


def all_but_each(
    partial: Num[Array, "r *shape"], factors: Sequence[Num[Array, "_ r"]]
) -> list[Num[Array, "r _"]]:
    """The sums over all modes but one, for every mode: two halves, which share what is summed already."""
    if len(factors) == 1:
        return [partial]
    split = best_split(tuple(partial.shape[1:]))
    left = right = partial
    for factor in reversed(factors[split:]):
        left = _sum_last(left, factor)
    for factor in factors[:split]:
        right = _sum_first(right, factor)
    return all_but_each(left, factors[:split]) + all_but_each(right, factors[split:])


def _sum_first(partial: Num[Array, "r i *rest"], factor: Num[Array, "i r"]) -> Num[Array, "r *rest"]:
    """Σᵢ partial[r, i, …] factor[i, r]: a batch over r of one vector times a matrix."""
    xp, (rank, size, *rest) = namespace(partial), partial.shape
    summed = factor.T[:, None, :] @ xp.reshape(partial, (rank, size, prod(rest)))
    return xp.reshape(summed, (rank, *rest))


def _sum_last(partial: Num[Array, "r *rest i"], factor: Num[Array, "i r"]) -> Num[Array, "r *rest"]:
    """Σᵢ partial[r, …, i] factor[i, r]: a batch over r of a matrix times one vector."""
    xp, (rank, *rest, size) = namespace(partial), partial.shape
    summed = xp.reshape(partial, (rank, prod(rest), size)) @ factor.T[:, :, None]
    return xp.reshape(summed, (rank, *rest))
