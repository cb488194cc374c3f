"""What the bonds of a network can carry: ranks above it are cut, and no tensor is lost by that.

A bond between two factors carries no more than the product of the other axes of either (for a Tucker core:
R0 <= m0 and R0 <= R1 R2 ...; for a train: R1 <= R0 m0). Axes that all factors of the bond have do not count:
for each of their values the bond is there anew (slices, the terms of a sum).

A bond on a cycle, moreover, needs no more than if the cycle were opened elsewhere: the smaller side of the
tensor, for the part in two that makes it largest. So a ring is cut to what the trains need that it contains.
Where all ranks of a cycle are that large, a tree of the same bonds would do.

A bond of more than two factors numbers terms. There are no more than the product of all outer axes but the
largest factor's, as no tensor has a higher CP rank; and one, where a term by itself holds every tensor.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

Axis = str
Axes = tuple[Axis, ...]
Sizes = Mapping[Axis, int]
Factors = tuple[Axes, ...]


def distinct(axes: Sequence[Axes]) -> Axes:
    """Every axis once, in the order of first appearance."""
    return tuple(dict.fromkeys(a for group in axes for a in group))


def bonds_in(factors: Factors, modes: Axes) -> Axes:
    """The axes that are no modes."""
    return tuple(a for a in distinct(factors) if a not in modes)


def clipped(factors: Factors, modes: Axes, sizes: Sizes) -> dict[Axis, int]:
    """The sizes of the bonds, cut until no bond is larger than it can carry.

    >>> clipped((("m0", "R"), ("R", "m1")), ("m0", "m1"), {"m0": 4, "m1": 5, "R": 9})
    {'R': 4}
    """
    sizes = dict(sizes)
    bonds = bonds_in(factors, modes)
    while True:
        bounds = {b: min(sizes[b], capacity(factors, modes, sizes, b)) for b in bonds}
        if all(bounds[b] == sizes[b] for b in bonds):
            return bounds
        sizes.update(bounds)


def capacity(factors: Factors, modes: Axes, sizes: Sizes, b: Axis) -> int:
    """The most that bond `b` can carry or need, while the others have their sizes."""
    holders = [f for f in factors if b in f]
    inner = set(holders[0]).intersection(*holders)
    if len(holders) == 2:
        least = min(math.prod(sizes[a] for a in f if a not in inner) for f in holders)
        return min(least, needs(factors, tuple((m, sizes[m]) for m in modes)).get(b, least))
    if terms_hold_all(factors, modes, sizes, b):
        return 1
    inner |= {a for a in bonds_in(factors, modes) if all(f in holders for f in factors if a in f)}
    outer = [math.prod(sizes[a] for a in f if a not in inner) for f in holders]
    return max(1, math.prod(outer) // max(outer))


def terms_hold_all(factors: Factors, modes: Axes, sizes: Sizes, b: Axis) -> bool:
    """Whether the network without bond `b`, which all factors carry, holds every tensor of its shape."""
    if len(factors) < 2 or any(b not in f for f in factors):
        return False
    term = tuple(tuple(a for a in f if a != b) for f in factors)
    if len(components(term, modes)) > 1:
        return False
    most = _full(term, modes, tuple((m, sizes[m]) for m in modes))
    return all(sizes[a] >= n for a, n in most.items())


@lru_cache(maxsize=4096)
def _full(factors: Factors, modes: Axes, shape: tuple[tuple[Axis, int], ...]) -> dict[Axis, int]:
    """Every bond at the largest size that it can carry."""
    largest = math.prod(n for _, n in shape)
    return clipped(factors, modes, dict(shape) | dict.fromkeys(bonds_in(factors, modes), largest))


def components(factors: Sequence[Axes], modes: Sequence[Axis] = ()) -> tuple[tuple[int, ...], ...]:
    """The factors, by number, in groups that are joined by axes other than `modes`.

    >>> components((("m0", "R"), ("m1", "S"), ("R", "m2")), ("m0", "m1", "m2"))
    ((0, 2), (1,))
    """
    groups: list[tuple[set[Axis], set[int]]] = []
    for n, f in enumerate(factors):
        axes, members = set(f) - set(modes), {n}
        for group in [g for g in groups if g[0] & axes]:
            groups.remove(group)
            axes, members = axes | group[0], members | group[1]
        groups.append((axes, members))
    return tuple(sorted(tuple(sorted(members)) for _, members in groups))


@lru_cache(maxsize=4096)
def needs(factors: Factors, shape: tuple[tuple[Axis, int], ...]) -> dict[Axis, int]:
    """Bond -> what it needs at most, for bonds on cycles that are between two factors.

    The smaller side of the best part of the factors in two that the bond crosses. Parts are known by the
    products of their modes alone, of which there are few.

    >>> ring = (("R0", "m0", "R1"), ("R1", "m1", "R2"), ("R2", "m2", "R0"))
    >>> needs(ring, (("m0", 2), ("m1", 3), ("m2", 4)))
    {'R0': 4, 'R1': 3, 'R2': 4}
    """
    size = dict(shape)
    found: dict[Axis, int] = {}
    for b in bonds_in(factors, tuple(size)):
        holders = [n for n, f in enumerate(factors) if b in f]
        if len(holders) == 2 and _on_cycle(factors, tuple(size), holders):
            found[b] = _best_part(factors, size, holders)
    return found


def _best_part(factors: Factors, size: Sizes, holders: Sequence[int]) -> int:
    """The smaller side of the best part of the factors in two that has one of two factors on either side."""
    both = set(factors[holders[0]]) & set(factors[holders[1]])
    weights = [math.prod(size[a] for a in f if a in size and a not in both) for f in factors]
    products = {weights[holders[0]]}
    for n, weight in enumerate(weights):
        if n not in holders and weight > 1:
            products |= {p * weight for p in products}
    return max(min(p, math.prod(weights) // p) for p in products)


def _on_cycle(factors: Factors, modes: Axes, holders: Sequence[int]) -> bool:
    """Whether two factors are joined by another way than by axes that both have."""
    common = set(factors[holders[0]]) & set(factors[holders[1]])
    groups = components([tuple(a for a in f if a not in common) for f in factors], modes)
    return any(set(holders) <= set(g) for g in groups)
