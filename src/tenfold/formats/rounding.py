"""Rounding: the smallest ranks at which a tensor network stays within a tolerance; nothing becomes dense."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tenfold.core.arrays import values_needed
from tenfold.core.errors import OptionError, RankError
from tenfold.core.network import Axis
from tenfold.core.trees import register_jax
from tenfold.formats.base import Format
from tenfold.formats.branches import is_tree
from tenfold.formats.constructors import whole_number
from tenfold.formats.cycles import rounded_cycles
from tenfold.formats.graphs import Ranks, bonds_of, ranks_within
from tenfold.formats.orthogonalise import computed, limit_of, refilled, scaled
from tenfold.formats.scaling import is_scalar
from tenfold.formats.truncation import rounded_tree

F = TypeVar("F", bound=Format)

TRACED = "Call it outside jit, grad and vmap; `rounded` cuts trees to given ranks there, too."
"""What to do instead with traced arrays."""


@dataclass(frozen=True)
class Rounded(Generic[F]):
    """A tensor of smaller ranks, and its relative error ‖x - value‖ / ‖x‖ (0 for a zero tensor).

    The error is calculated before `value` is cast to its dtype; NaN where it was not measured. Of traced
    arrays it is an array that no gradient flows through. A pytree of JAX.
    """

    value: F
    error: float


register_jax(Rounded, lambda found: ((found.value, found.error), None), lambda _, leaves: Rounded(*leaves))


@values_needed("rounded", TRACED)
def rounded(value: F, ranks: Ranks | None = None, tol: float = 0.0) -> Rounded[F]:
    """The tensor with smaller ranks: at most `ranks`, and no larger than a relative error of `tol` asks for.

    Guaranteed: ‖x - value‖ ≤ tol ‖x‖ where no ranks are given, and never worse than √bonds times the best of
    the ranks found. The error comes from the discarded singular values, so that tolerances down to 1e-12
    hold in float64; with `tol=0` only what is exactly zero goes. Computed in float32 at least; norms are
    carried as logarithms, so that trains of high order do not overflow. `ranks` are as in `Ranks` (None in a
    sequence leaves a bond as it is, a fraction is of the elements of the dense tensor). A zero tensor gets
    ranks of 1.

    Works for every network that is a tree (low rank, Tucker, train, hierarchical Tucker, general ones), by
    QR factorisations to the root and truncated SVDs on the way back; see `orthogonalised` for the gauge of
    the result but for its centre. Networks with cycles (rings, PEPS, MERA) are opened, see
    `tenfold.formats.cycles`.

    Cost: O(n r³) for a core of a train, O(r⁴) for a factor of a binary tree; `rounded_randomly` is cheaper
    where the new ranks are far below the old.

    Raises:
        UnsupportedError: for bonds that more than two factors share (CP, block terms), modes that several
            factors carry; for traced arrays with a tolerance or with cycles.
        RankError: if the ranks do not fit the bonds.
        OptionError: unless 0 <= tol < 1.
        WeightError: if a factor holds NaN or infinite entries.

    Source: Oseledets, SIAM J. Sci. Comput. 33(5), 2011, algorithm 2; Grasedyck, SIAM J. Matrix Anal. 31(4),
    2010, section 3.

    >>> import numpy as np
    >>> from tenfold.formats import TensorTrain
    >>> x = TensorTrain.random((4, 5, 6), 2, like=np.zeros(()), generator=0)
    >>> wide = TensorTrain(tuple(np.repeat(c, 2, axis=-1) if k < 2 else c for k, c in enumerate(x.cores)))
    >>> wide = TensorTrain(tuple(np.repeat(c, 2, axis=0) if k else c for k, c in enumerate(wide.cores)))
    >>> found = rounded(wide, tol=1e-10)
    >>> wide.ranks, found.value.ranks, found.error < 1e-10
    ({'R1': 4, 'R2': 4}, {'R1': 2, 'R2': 2}, True)
    """
    check_tolerance(tol)
    network, limits = value.network, bond_limits(value, ranks)
    method = rounded_tree if is_tree(network) else rounded_cycles
    found = method(network, computed(value), limits, tol)
    factors = scaled(found.arrays, found.centre, found.log, limit_of(value))
    return Rounded(refilled(value, factors), found.error)


def bond_limits(value: Format, ranks: Ranks | None) -> dict[Axis, int]:
    """Bond -> the size that it may keep, from ranks as people write them; see `Ranks`.

    In a sequence, None leaves a bond as it is; a fraction is of the elements of the dense tensor.

    >>> import numpy as np
    >>> from tenfold.formats import TensorTrain
    >>> bond_limits(TensorTrain.random((4, 5, 6), 3, like=np.zeros(())), (9, 2))
    {'R1': 9, 'R2': 2}
    """
    have = value.ranks
    wanted = {} if ranks is None else _by_bond(value, ranks)
    if unknown := [b for b in wanted if b not in have]:
        raise RankError(
            f"ranks name {', '.join(unknown)}, but the bonds are {', '.join(have) or 'none'}.",
            "Name bonds that the tensor has.",
        )
    if low := {b: r for b, r in wanted.items() if r < 1}:
        raise RankError(f"ranks must be at least 1, but came as {low}.", "Choose ranks of 1 or more.")
    return wanted


def _by_bond(value: Format, ranks: Ranks) -> dict[Axis, int]:
    if isinstance(ranks, Mapping):
        return {b: whole_number(r) for b, r in ranks.items()}
    if isinstance(ranks, float):
        if not 0 < ranks <= 1:
            raise RankError(
                f"a fraction of the parameters came as {ranks}.", "Give one in (0, 1], or an int."
            )
        return ranks_within(value.network, int(ranks * math.prod(value.shape)))
    if not isinstance(ranks, list | tuple):
        return dict.fromkeys(value.ranks, whole_number(ranks))
    bonds = bonds_of(value.graph)
    if len(ranks) != len(bonds):
        raise RankError(
            f"the tensor has {len(bonds)} bonds, but {len(ranks)} ranks came: {list(ranks)}.",
            f"Give one for each of {', '.join(bonds)}.",
        )
    return {b: whole_number(r) for b, r in zip(bonds, ranks, strict=True) if r is not None}


def check_tolerance(tol: float) -> None:
    """Raise OptionError unless 0 <= tol < 1."""
    if not is_scalar(tol) or isinstance(tol, complex) or not 0 <= tol < 1:
        raise OptionError(f"tol came as {tol!r}.", "Give a relative error from 0 up to 1.")
