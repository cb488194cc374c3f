"""Sketches of tree networks: what lies above each bond, contracted with a random tensor of the same graph."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from tenfold.algebra import mode_dot
from tenfold.core.arrays import Array, adjoint, epsilon, namespace
from tenfold.core.network import Axis, Network
from tenfold.core.noise import normal
from tenfold.formats.branches import Branch
from tenfold.formats.orthogonalise import plain
from tenfold.formats.truncation import feasible

FIRST = (
    16  # columns of the first block of a sketch that grows; every further one is half as wide as all before
)

Parts = Sequence[Array]
"""One array for each term of a sum."""


@dataclass(frozen=True)
class Terms:
    """A sum of tensors on one tree: for each factor, the arrays of all terms. Bonds differ in size."""

    network: Network
    tree: Branch
    parts: Sequence[Parts]


def sketch(terms: Terms, widths: Mapping[Axis, int], generator: Any) -> dict[Axis, Parts]:
    """Bond -> for each term a matrix (size, width): all that is above the bond, times a random tensor.

    The random tensor has the graph of the terms and ranks `widths`, as far as its bonds can carry them. All
    matrices of a bond are multiplied by one number, which keeps them within range.
    """
    wide, tree = terms.network.with_ranks(widths), terms.tree
    narrow = wide.with_ranks(feasible(wide, [tree]))
    messages: dict[tuple[int, Axis], Parts] = {}

    def send(factor: int, bond: Axis) -> None:
        """Contract a factor with all that comes to it by its other bonds, and with a random factor."""
        axes = terms.network.factors[factor]
        coming = {b: messages[factor, b] for b in axes if b != bond and (factor, b) in messages}
        noise = normal(narrow.extent(axes), like=terms.parts[factor][0], generator=generator)
        others = tuple(n for n, a in enumerate(axes) if a != bond)
        products = []
        for k, array in enumerate(terms.parts[factor]):
            for b, matrices in coming.items():
                array = mode_dot(array, matrices[k].T, axes.index(b))
            products.append(namespace(array).tensordot(array, noise, axes=(others, others)))
        messages[receiver[factor, bond], bond] = evenly_scaled(products)[0]

    receiver = {(link.child, link.bond): link.parent for link in tree.links}
    receiver |= {(link.parent, link.bond): link.child for link in tree.links}
    asked = _asked_upwards(tree)
    for link in reversed(tree.links):
        if link.child in asked:
            send(link.child, link.bond)
    for link in tree.links:
        send(link.parent, link.bond)
    return {link.bond: messages[link.child, link.bond] for link in tree.links}


def _asked_upwards(tree: Branch) -> set[int]:
    """The factors whose subtree another subtree has to know: those with siblings, and all below them."""
    asked, children = set[int](), Counter(link.parent for link in tree.links)
    for link in tree.links:
        if children[link.parent] > 1 or link.parent in asked:
            asked.add(link.child)
    return asked


def evenly_scaled(arrays: Parts) -> tuple[Parts, float]:
    """The arrays divided by the largest of all their entries, and this number; zeros stay, and give 0."""
    largest = max(plain(namespace(a).max(namespace(a).abs(a))) for a in arrays)
    return ([a / largest for a in arrays] if largest > 0 else arrays), largest


class Fixed:
    """Bases of given widths, from one sketch."""

    def __init__(self, terms: Terms, widths: Mapping[Axis, int], generator: Any) -> None:
        self.widths, self.sketch = widths, sketch(terms, widths, generator)

    def basis(self, bond: Axis, matrices: Parts) -> Array:
        """Orthonormal columns near the range of all `matrices`, each with the columns of its term's bond."""
        if sum(m.shape[1] for m in matrices) <= self.widths[bond]:
            return range_of(matrices)
        return namespace(*matrices).linalg.qr(combined(matrices, self.sketch[bond]))[0]


class Growing:
    """Bases that grow until an independent block of the sketch has no more than `tol` of its norm outside.

    Blocks are made when a bond first needs them, for all bonds at once.
    """

    def __init__(self, terms: Terms, tol: float, generator: Any) -> None:
        self.terms, self.generator = terms, generator
        self.tol = max(tol, 10 * epsilon(terms.parts[0][0]))
        self.blocks: list[dict[Axis, Parts]] = []

    def basis(self, bond: Axis, matrices: Parts) -> Array:
        """As in `Fixed`; where the sketch gets as wide as the matrices are, their range itself."""
        xp = namespace(*matrices)
        most = min(matrices[0].shape[0], sum(m.shape[1] for m in matrices))
        if most <= FIRST:
            return range_of(matrices)
        basis, _ = xp.linalg.qr(combined(matrices, self.block(0)[bond]))
        for n in count(1):
            block = combined(matrices, self.block(n)[bond])
            missed = block - basis @ (adjoint(basis) @ block)
            if length(missed) <= self.tol * length(block):
                return basis
            if basis.shape[1] + block.shape[1] >= most:
                break
            new, _ = xp.linalg.qr(missed)
            new, _ = xp.linalg.qr(new - basis @ (adjoint(basis) @ new))
            basis = xp.concat([basis, new], axis=1)
        return range_of(matrices)

    def block(self, n: int) -> dict[Axis, Parts]:
        """The n-th block of the sketch, half as wide as all before it."""
        while len(self.blocks) <= n:
            width = round(FIRST / 2 * 1.5 ** (len(self.blocks) - 1)) if self.blocks else FIRST
            widths = dict.fromkeys(self.terms.network.bonds, width)
            self.blocks.append(sketch(self.terms, widths, self.generator))
        return self.blocks[n]


def combined(matrices: Parts, sketches: Parts) -> Array:
    """The sum of the products, term by term."""
    first, *others = (m @ s for m, s in zip(matrices, sketches, strict=True))
    return sum(others, start=first)


def range_of(matrices: Parts) -> Array:
    """An orthonormal basis of the columns of all matrices."""
    xp = namespace(*matrices)
    return xp.linalg.qr(xp.concat(list(matrices), axis=1))[0]


def length(x: Array) -> float:
    """The Frobenius norm as a Python float."""
    return plain(namespace(x).linalg.vector_norm(x))
