"""The graph behind a tensor format: which axes of which factors meet. Pure Python, hashable, no arrays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tenfold.core.capacity import Axes, Axis, Sizes, clipped, components, distinct
from tenfold.core.errors import RankError, ShapeError

__all__ = [
    "Axes",
    "Axis",
    "Network",
    "Sizes",
    "bond",
    "components",
    "distinct",
    "identity",
    "mode",
    "shared_bonds",
    "skeleton",
]


def mode(k: int) -> Axis:
    """Name of the k-th mode of a format."""
    return f"m{k}"


def bond(k: int) -> Axis:
    """Name of the k-th bond of a format. Bonds are in capitals: no axis of a layout can be called so."""
    return f"R{k}"


@dataclass(frozen=True)
class Network:
    """Factors as tuples of named axes; `modes` are the free axes, every other axis is a bond.

    >>> cp = Network((("m0", "R"), ("m1", "R")), ("m0", "m1"), (("m0", 4), ("m1", 5), ("R", 3)))
    >>> cp.bonds, cp.shapes, cp.numel
    (('R',), ((4, 3), (5, 3)), 27)
    """

    factors: tuple[Axes, ...]
    modes: Axes
    sizes: tuple[tuple[Axis, int], ...]

    @cached_property
    def size_of(self) -> dict[Axis, int]:
        """Axis -> size."""
        return dict(self.sizes)

    @cached_property
    def bonds(self) -> Axes:
        """The axes that only factors share."""
        return tuple(a for a in distinct(self.factors) if a not in self.modes)

    @cached_property
    def slices(self) -> Axes:
        """The modes that every one of several factors carries: they number slices, each a network of its own.

        >>> Network((("s", "o", "R"), ("s", "R", "i")), ("o", "s", "i"), ()).slices
        ('s',)
        """
        several = len(self.factors) > 1
        return tuple(m for m in self.modes if several and all(m in f for f in self.factors))

    @property
    def ranks(self) -> dict[Axis, int]:
        """Bond -> size."""
        return {b: self.size_of[b] for b in self.bonds}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the represented tensor."""
        return self.extent(self.modes)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of every factor."""
        return tuple(self.extent(f) for f in self.factors)

    @property
    def numel(self) -> int:
        """Number of stored elements."""
        return sum(self.product(f) for f in self.factors)

    def extent(self, axes: Axes) -> tuple[int, ...]:
        """Sizes of `axes`."""
        return tuple(self.size_of[a] for a in axes)

    def product(self, axes: Axes) -> int:
        """Product of the sizes of `axes`."""
        return math.prod(self.size_of[a] for a in axes)

    def with_ranks(self, ranks: Sizes) -> "Network":
        """The same graph with other bond sizes."""
        sizes = tuple((a, int(ranks[a]) if a in ranks else n) for a, n in self.sizes)
        return replace(self, sizes=sizes)

    def renamed(self, names: Mapping[Axis, Axis]) -> "Network":
        """The same graph with other axis names."""

        def new(axes: Axes) -> Axes:
            return tuple(names.get(a, a) for a in axes)

        sizes = tuple((names.get(a, a), n) for a, n in self.sizes)
        return Network(tuple(new(f) for f in self.factors), new(self.modes), sizes)

    def refined(self, groups: Sequence[Sequence[tuple[Axis, int]]]) -> "Network":
        """Each mode split into the named axes of its group, whose sizes multiply to the mode's.

        >>> Network((("m0", "R"), ("m1", "R")), ("m0", "m1"), (("m0", 4), ("m1", 6), ("R", 3))).refined(
        ...     [[("o", 4)], [("i", 2), ("h", 3)]]).factors
        (('o', 'R'), ('i', 'h', 'R'))
        """
        for m, group in zip(self.modes, groups, strict=True):
            if math.prod(n for _, n in group) != self.size_of[m]:
                raise ShapeError(
                    f"mode {m} has size {self.size_of[m]}, but its axes are {dict(group)}.",
                    "Give sizes whose product is the mode's.",
                )
        into = {m: tuple(a for a, _ in g) for m, g in zip(self.modes, groups, strict=True)}

        def new(axes: Axes) -> Axes:
            return tuple(b for a in axes for b in into.get(a, (a,)))

        sizes = [pair for group in groups for pair in group]
        sizes += [(a, n) for a, n in self.sizes if a not in into]
        return Network(tuple(new(f) for f in self.factors), new(self.modes), tuple(sizes))

    def clipped(self) -> "Network":
        """Every bond cut down to what it can carry, without loss: see `tenfold.core.capacity`."""
        return self.with_ranks(clipped(self.factors, self.modes, self.size_of))

    def full(self) -> "Network":
        """Every bond at the largest size that it can carry."""
        largest = math.prod(self.shape)
        return self.with_ranks(dict.fromkeys(self.bonds, largest)).clipped()

    def cut(self, b: Axis) -> tuple[Axes, ...]:
        """Sets of modes that fall apart when bond `b` is removed, one per part that holds any modes.

        Modes that number slices are in no part: they join nothing.
        """
        parts: list[set[Axis]] = []
        for f in self.factors:
            axes = set(f) - {b, *self.slices}
            touching = [p for p in parts if p & axes]
            parts = [p for p in parts if not p & axes] + [axes.union(*touching)]
        found = (tuple(m for m in self.modes if m in p) for p in parts)
        return tuple(sorted((p for p in found if p), key=lambda p: self.modes.index(p[0])))


def identity(axes: Axes, shared: Sequence[Axis] = ()) -> tuple[Axis, Axis] | None:
    """(mode, bond) if the factor is a matrix from a mode to a bond, which may be left out; otherwise None.

    Bonds of all factors, `shared`, may number such matrices: the same identity for every term.

    >>> identity(("m1", "R1")), identity(("T", "m1", "R1"), ("T",)), identity(("R1", "m1", "R2"))
    (('m1', 'R1'), ('m1', 'R1'), None)
    """
    own = axes if len(axes) == 2 else tuple(a for a in axes if a not in shared)
    modes = [a for a in own if a.startswith("m")]
    if len(own) != 2 or len(modes) != 1:
        return None
    return modes[0], next(a for a in own if a != modes[0])


def shared_bonds(factors: Sequence[Axes]) -> Axes:
    """The bonds that every one of several factors carries: they number the terms of a sum.

    >>> shared_bonds((("T", "R0"), ("T", "m0", "R0"), ("T", "m1"))), shared_bonds((("m0", "R"),))
    (('T',), ())
    """
    several = len(factors) > 1
    return tuple(
        a for a in distinct(factors) if several and not a.startswith("m") and all(a in f for f in factors)
    )


def skeleton(factors: tuple[Axes, ...], shape: Sequence[int], ranks: Sizes) -> Network:
    """The network of a format with the given mode sizes and bond sizes.

    A bond that `ranks` does not name leaves its mode whole: the factor (mode, bond) is an identity, which is
    not stored, and the mode takes the place of the bond.

    >>> tucker = (("R0", "R1"), ("m0", "R0"), ("m1", "R1"))
    >>> skeleton(tucker, (4, 5), {"R0": 2}).factors
    (('R0', 'm1'), ('m0', 'R0'))
    """
    names = sorted((a for a in distinct(factors) if a.startswith("m")), key=lambda a: int(a[1:]))
    bonds = [a for a in distinct(factors) if a not in names]
    if unknown := [b for b in ranks if b not in bonds]:
        raise RankError(
            f"ranks name {', '.join(map(str, unknown))}, but the bonds are {', '.join(bonds)}.",
            "Name bonds of the format.",
        )
    if low := {b: n for b, n in ranks.items() if n < 1}:
        raise RankError(f"ranks must be at least 1, but came as {low}.", "Choose ranks of 1 or more.")
    shared = shared_bonds(factors)
    whole = {b: _mode_of(factors, b, shared) for b in bonds if b not in ranks}
    kept = [f for f in factors if (pair := identity(f, shared)) is None or pair[1] not in whole]
    sizes = [*zip(names, (int(n) for n in shape), strict=True), *((b, int(r)) for b, r in ranks.items())]
    return Network(tuple(tuple(whole.get(a, a) for a in f) for f in kept), tuple(names), tuple(sizes))


def _mode_of(factors: tuple[Axes, ...], b: Axis, shared: Axes) -> Axis:
    """The mode that takes the place of bond `b` when the identity factor (mode, b) is left out."""
    pairs = [p for f in factors if (p := identity(f, shared)) is not None and p[1] == b]
    if len(pairs) != 1 or sum(b in f for f in factors) < 2:
        raise RankError(
            f"no rank is given for bond {b}, and it has no mode of its own that could stay whole.",
            f"Give a rank for {b}.",
        )
    return pairs[0][0]
