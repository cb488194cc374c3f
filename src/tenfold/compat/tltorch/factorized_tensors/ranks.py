"""Ranks as TensorLy-Torch writes them: "same", a fraction of the parameters, an int, a tuple.

"same" is the fraction 1. A fraction is never exceeded, whereas TensorLy-Torch rounds to something near it,
and ranks above what a bond can carry are cut, without loss.
"""

import math
from collections.abc import Sequence
from typing import Any

from tenfold.core.errors import RankError
from tenfold.core.network import bond
from tenfold.formats import CP, TensorTrain, Tucker
from tenfold.formats.constructors import whole_number

Shape = Sequence[int]


def fraction(rank: Any) -> float | None:
    """The fraction of the parameters that is asked for; None if ranks are.

    Raises:
        RankError: for a fraction that is not in (0, 1].

    >>> fraction("same"), fraction(0.25), fraction(7)
    (1.0, 0.25, None)
    """
    share = 1.0 if rank == "same" else rank
    if not isinstance(share, float):
        return None
    if not 0 < share <= 1:
        raise RankError(
            f"rank={rank} came, which is a fraction of the parameters.",
            'Give one in (0, 1], or "same" for 1; a rank itself is an int.',
        )
    return share


def cp_rank(shape: Shape, rank: Any) -> int:
    """Number of components; each has a weight besides its vectors.

    >>> cp_rank((8, 6, 5), "same"), cp_rank((8, 6, 5), 0.3), cp_rank((8, 6, 5), 99)
    (12, 3, 30)
    """
    share = fraction(rank)
    if share is not None:
        each = 1 + sum(shape)
        rank = int(share * math.prod(shape)) // each
        if rank < 1:
            raise RankError(
                f"a component of shape {tuple(shape)} has {each} parameters, more than {share} of all.",
                f"Ask for a fraction of {each / math.prod(shape):.3g} or more, or for a rank.",
            )
    if isinstance(rank, list | tuple) and len(rank) == 1:
        (rank,) = rank
    return CP.skeleton(shape, whole_number(rank)).ranks["R"]


def tucker_rank(shape: Shape, rank: Any, fixed: Sequence[int] | None = None) -> tuple[int, ...]:
    """One rank for each mode; those of the modes `fixed` are the modes' sizes.

    >>> tucker_rank((8, 6, 3), 0.5, fixed=[2]), tucker_rank((8, 6, 3), 4), tucker_rank((8, 6, 3), (2, 2, 1))
    ((3, 2, 3), (4, 4, 3), (2, 2, 1))
    """
    whole = _checked(fixed, len(shape))
    share = fraction(rank)
    if share is not None:
        beside = sum(shape[k] ** 2 for k in whole)
        found = Tucker.ranks_within(shape, int(share * math.prod(shape)) - beside, whole)
        return tuple(found.get(bond(k), n) for k, n in enumerate(shape))
    each = list(rank) if isinstance(rank, list | tuple) else [rank] * len(shape)
    if len(each) != len(shape):
        raise RankError(f"{len(each)} ranks came for {len(shape)} modes: {each}.", "Give one for each mode.")
    ranks = {bond(k): whole_number(shape[k] if k in whole else r) for k, r in enumerate(each)}
    cut = Tucker.skeleton(shape, ranks).ranks
    return tuple(cut[bond(k)] for k in range(len(shape)))


def tt_rank(shape: Shape, rank: Any) -> tuple[int, ...]:
    """The ranks of all bonds with the ones at both ends.

    >>> tt_rank((4, 5, 6), 3), tt_rank((4, 5, 6), (1, 2, 9, 1)), tt_rank((4, 5, 6), 0.5)
    ((1, 3, 3, 1), (1, 2, 6, 1), (1, 2, 3, 1))
    """
    order, share = len(shape), fraction(rank)
    if share is not None:
        inner = TensorTrain.ranks_within(shape, int(share * math.prod(shape)))
    else:
        each = list(rank) if isinstance(rank, list | tuple) else [1, *[rank] * (order - 1), 1]
        if len(each) != order + 1 or (each[0], each[-1]) != (1, 1):
            raise RankError(
                f"the ranks {each} came for a train of {order} modes.",
                f"Give {order + 1}, of which the first and the last are 1.",
            )
        inner = TensorTrain.skeleton(shape, [whole_number(r) for r in each[1:-1]]).ranks
    return (1, *(inner[bond(k)] for k in range(1, order)), 1)


def _checked(fixed: Sequence[int] | None, order: int) -> tuple[int, ...]:
    modes = tuple(fixed or ())
    if any(not -order <= k < order for k in modes):
        raise RankError(f"fixed_rank_modes={list(modes)} came for {order} modes.", "Number them from 0.")
    return tuple(sorted(k % order for k in modes))
