"""Hierarchical Tucker by truncated SVDs from the leaves of the dimension tree to its root."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from tenfold.algebra import mode_dot
from tenfold.core.arrays import Array, adjoint, namespace
from tenfold.core.leading import leading
from tenfold.core.network import Axis, Network
from tenfold.core.pieces import frobenius, together
from tenfold.decompose.base import Fit, Method, check_tolerance, methods, relative
from tenfold.decompose.cuts import cheapest_first
from tenfold.decompose.trains.ends import identity
from tenfold.formats import HierarchicalTucker
from tenfold.formats.dimension_tree import Tree, balanced, bond_above, check_tree, joints, modes_below


@methods.register("ht_svd")
@dataclass(frozen=True)
class HTSVD(Method[HierarchicalTucker]):
    """One SVD for each node of the tree, by ranks or by a relative error `tol`, of which each gets its share.

    From the leaves to the root, each step with a smaller tensor: every mode is projected on its leading left
    singular vectors, as in ST-HOSVD; then, level by level, the modes that a node joins become one, which is
    projected in turn. What is left is the root. All projections commute, so the squared error *equals* the
    sum of what the steps discard, and no step discards more than the small singular values of the tensor's
    own unfolding: the error is within sqrt(2 order - 3) of the best for these ranks and a binary tree (its
    two nodes below the root share one unfolding). All factors but the root have orthonormal columns.

    Use it for tensors of high order whose modes fall in groups; for a chain of modes, `TTSVD` is simpler.
    `tree` is a dimension tree, see `HierarchicalTucker`; balanced if None.

    Cost for a tensor of N entries and modes of size n: O(n N) for the first mode, little for the others if
    its rank is small. Memory: the tensor after its first cut.

    Source: Grasedyck, SIAM J. Matrix Anal. Appl. 31(4), 2010, algorithm 2, theorem 3.11; cut in sequence as
    in Vannieuwenhoven, Vandebril & Meerbergen 2012.

    Raises:
        OptionError: for a tolerance outside 0 <= tol < 1, or a tree that is none.

    >>> import numpy as np
    >>> x = np.sin(np.arange(256.0)).reshape(4, 4, 4, 4)
    >>> HTSVD(tol=1e-10)(x).value.ranks
    {'R0_1': 2, 'R2_3': 2, 'R0': 2, 'R1': 2, 'R2': 2, 'R3': 2}
    """

    format: ClassVar = HierarchicalTucker
    tolerant: ClassVar = True
    tol: float = 0.0
    tree: Tree | None = None

    def __post_init__(self) -> None:
        check_tolerance(self.tol)
        if self.tree is not None:
            check_tree(self.tree)

    def _static(self) -> Mapping[str, Any]:
        return {} if self.tree is None else {"tree": self.tree}

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[HierarchicalTucker]:
        tree = balanced(tensor.ndim) if self.tree is None else self.tree
        if isinstance(tree, int):
            return Fit(HierarchicalTucker(tensor, (), ()), 0.0)
        climb = _Climb(tensor, network, tree, self.tol)
        leaves: list[Array | None] = [None] * tensor.ndim
        for k, _ in cheapest_first(tensor.shape, network):
            leaves[k] = climb.cut(k)
        transfers = tuple(climb.join(node) for node in reversed(list(joints(tree))[1:]))
        value = HierarchicalTucker(climb.core, transfers[::-1], tuple(leaves), tree)
        return Fit(value, relative(together(0.0, *climb.discarded), climb.whole))


class _Climb:
    """The tensor on its way up: `core` has one axis for each of `nodes`, in the order of the tree."""

    def __init__(self, tensor: Array, network: Network, tree: tuple[Tree, ...], tol: float) -> None:
        self.core = namespace(tensor).permute_dims(tensor, modes_below(tree))
        self.nodes: list[Tree] = list(modes_below(tree))
        self.ranks, self.found = dict(network.ranks), dict[Axis, int]()
        self.whole, self.discarded = frobenius(tensor), list[float]()
        tops = [b for b in map(bond_above, tree) if b in self.ranks]
        self.twin = dict(zip(tops, reversed(tops), strict=True)) if len(tops) == len(tree) == 2 else {}
        cuts = len(self.ranks) - len(self.twin) // 2
        self.share = tol * self.whole / max(1, cuts) ** 0.5 if tol > 0 else 0.0

    def cut(self, node: Tree) -> Array:
        """Project the axis of a node on the basis that is returned."""
        axis, b = self.nodes.index(node), bond_above(node)
        rank, share = self._wanted(b, self.core.shape[axis])
        if rank >= self.core.shape[axis] and share <= 0:
            basis = identity(rank, self.core)
        else:
            basis, lost = leading(self.core, axis, rank, share)
            self.core = mode_dot(self.core, adjoint(basis), axis)
            self.discarded.append(lost)
        self.found[b] = basis.shape[1]
        return basis

    def _wanted(self, b: Axis, size: int) -> tuple[int, float]:
        """The rank of a bond, and what it may lose: nothing more where its twin below the root was cut."""
        if self.twin.get(b) in self.found:
            return min(self.ranks[b], size, self.found[self.twin[b]]), 0.0
        return min(self.ranks[b], size), self.share

    def join(self, node: tuple[Tree, ...]) -> Array:
        """Make the axes below a node one, and project it; the basis as an array of axes (*children, bond)."""
        xp, first = namespace(self.core), self.nodes.index(node[0])
        below, shape = self.core.shape[first : first + len(node)], tuple(self.core.shape)
        merged = (*shape[:first], prod(below), *shape[first + len(node) :])
        self.core = xp.reshape(self.core, merged)
        self.nodes[first : first + len(node)] = [node]
        basis = self.cut(node)
        return xp.reshape(basis, (*below, basis.shape[1]))
