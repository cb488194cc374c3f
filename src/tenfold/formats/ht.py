"""Hierarchical Tucker format: modes joined two by two along a tree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Shaped

from tenfold.core.arrays import Array
from tenfold.core.network import Axes, mode
from tenfold.formats.base import Format
from tenfold.formats.dimension_tree import (
    Tree,
    balanced,
    bond_above,
    check_fit,
    check_tree,
    joints,
    modes_below,
)
from tenfold.formats.factored import frozen
from tenfold.formats.registry import formats


@formats.register("ht")
@dataclass(frozen=True, eq=False)
class HierarchicalTucker(Format):
    """A basis for each mode, and for each node of a tree a basis made of those below it.

    For the tree ((0, 1), (2, 3)): X[i, j, k, l] = sum root[a, b] B[p, q, a] C[r, s, b] U0[i, p] U1[j, q]
    U2[k, r] U3[l, s]. `transfers` are the nodes below the root in preorder, each with the bonds of its
    children and then its own; `leaves` are matrices (mode, rank) by number of their mode, and one that is
    None leaves its mode whole. The bond above leaf k is R<k>; above a node, R and its modes: R0_1.

    The tree is an option of the graph, balanced if not given: nested tuples of mode numbers. A node may join
    more than two: the flat tree (0, 1, 2) is Tucker, and `dimension_tree.linear` has the ranks of a train.
    Storage is N m r + N r³, where Tucker's core has r^N.

    Source: Hackbusch & Kühn, J. Fourier Anal. Appl. 15, 2009; Grasedyck, SIAM J. Matrix Anal. Appl. 31(4),
    2010, definition 3.6.

    >>> import numpy as np
    >>> x = HierarchicalTucker.random((6, 4, 3, 5), 2, like=np.zeros(()), generator=0)
    >>> x.tree, x.root.shape, [b.shape for b in x.transfers], [u.shape for u in x.leaves]
    (((0, 1), (2, 3)), (2, 2), [(2, 2, 2), (2, 2, 2)], [(6, 2), (4, 2), (3, 2), (5, 2)])
    >>> HierarchicalTucker.skeleton((6, 4, 3), 2, tree=(0, (1, 2))).factors
    (('R0', 'R1_2'), ('R1', 'R2', 'R1_2'), ('m0', 'R0'), ('m1', 'R1'), ('m2', 'R2'))
    """

    root: Shaped[Array, "*children"]
    transfers: tuple[Shaped[Array, "*children rank"], ...]
    leaves: tuple[Shaped[Array, "mode rank"] | None, ...]
    tree: Tree = field(default=None, metadata={"static": True})  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        order = max(1, len(self.leaves))
        object.__setattr__(self, "tree", _checked(self.tree, order))

    @staticmethod
    def axes(order: int, tree: Tree | None = None) -> tuple[Axes, ...]:
        """The root over the bonds of its children, the transfers below it, a matrix for each mode.

        Of order 1 there is the root alone, over the mode.
        """
        known = _checked(tree, order)
        if isinstance(known, int):
            return ((mode(0),),)
        root, *below = (tuple(bond_above(child) for child in node) for node in joints(known))
        above = [bond_above(node) for node in joints(known)][1:]
        transfers = [(*children, b) for children, b in zip(below, above, strict=True)]
        return (root, *transfers, *((mode(k), bond_above(k)) for k in range(order)))

    @classmethod
    def lengths(cls, count: int, **static: Any) -> Mapping[str, int]:
        """A leaf for each mode, unless there is but one; the others but the root are transfers."""
        tree = static.get("tree")
        if tree is not None:
            check_tree(tree)
        leaves = (count + 1) // 2 if tree is None else len(modes_below(tree))
        leaves = 0 if count == 1 else leaves
        return {"transfers": count - 1 - leaves, "leaves": leaves}


def _checked(tree: Tree | None, order: int) -> Tree:
    """The tree, balanced if none is given; raises OptionError or ShapeError."""
    if tree is None:
        return balanced(order)
    tree = frozen(tree)
    check_tree(tree)
    check_fit(tree, order)
    return tree
