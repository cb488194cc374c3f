"""How a dense weight becomes the tensor that is factored, as a string in the manner of einops.

`"(o0=8 o1=8) (i0=4 i1=8) -> (o0 i0) (o1 i1)"` is the TT-matrix, `"o i h w -> (i h) (o w)"` spatial SVD.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tenfold.core.errors import LayoutError
from tenfold.core.network import Axes, Axis, distinct

Groups = tuple[Axes, ...]

_GROUP = re.compile(r"\(([^()]*)\)|([^\s()]+)")
_AXIS = re.compile(r"([a-z][a-z0-9_]*)(?:=([1-9][0-9]*))?")


@dataclass(frozen=True)
class Layout:
    """Groups of axes of a weight, the groups of axes that are its modes, and the sizes that are known.

    >>> layout = Layout.parse("o i h w -> (i h) (o w)").bind((8, 6, 3, 3))
    >>> layout.mode_shape
    (18, 24)
    >>> str(layout)
    'o i h w -> (i h) (o w)'
    """

    weight: Groups
    modes: Groups
    sizes: tuple[tuple[Axis, int], ...] = ()

    @staticmethod
    def parse(text: str) -> "Layout":
        """Read `text`; raises LayoutError if it is not `groups -> groups` over the same axes."""
        return _parse(text)

    def __str__(self) -> str:
        split = {a for g in self.weight if len(g) > 1 for a in g}
        known = {a: n for a, n in self.sizes if a in split}
        left = " ".join(_show(g, known) for g in self.weight)
        return f"{left} -> {' '.join(_show(g, {}) for g in self.modes)}"

    def bind(self, shape: Sequence[int], name: str = "the weight") -> "Layout":
        """The layout with all sizes filled in from the weight's shape; raises LayoutError if they differ."""
        if len(shape) != len(self.weight):
            raise LayoutError(
                f"'{name}' has {len(shape)} axes {tuple(shape)}, but layout \"{self}\" describes "
                f"{len(self.weight)}.",
                "Write one group for every axis of the weight.",
            )
        sizes = dict(self.sizes)
        for group, n in zip(self.weight, shape, strict=True):
            sizes.update(self._solve(group, int(n), sizes, name))
        return Layout(self.weight, self.modes, tuple((a, sizes[a]) for a in distinct(self.weight)))

    def _solve(self, group: Axes, n: int, sizes: dict[Axis, int], name: str) -> dict[Axis, int]:
        known = [a for a in group if a in sizes]
        unknown = [a for a in group if a not in sizes]
        product = math.prod(sizes[a] for a in known)
        if len(unknown) > 1:
            raise LayoutError(
                f"layout \"{self}\" splits {n} of '{name}' into {unknown}, whose sizes are not given.",
                f"Write all but one of them, e.g. ({unknown[0]}=... {' '.join(unknown[1:])}).",
            )
        if (not unknown and product != n) or n % max(product, 1):
            text = "*".join(known) + " = " + "*".join(str(sizes[a]) for a in known)
            raise LayoutError(
                f"'{name}' has an axis of size {n}, but layout \"{self}\" gives {text} = {product}.",
                f"Choose sizes whose product is {n}, e.g. {_example(group, n)}.",
            )
        return dict.fromkeys(unknown, n // product)

    def with_axis(self, name: Axis, before: Axis, size: int) -> "Layout":
        """The layout with one more axis, which stands right before another wherever that one stands.

        >>> str(Layout.parse("o i h w -> (i h) (o w)").with_axis("g", "o", 4))
        '(g=4 o) i h w -> (i h) (g o w)'
        """

        def insert(groups: Groups) -> Groups:
            return tuple(tuple(x for a in g for x in ((name, a) if a == before else (a,))) for g in groups)

        return Layout(insert(self.weight), insert(self.modes), (*self.sizes, (name, size)))

    @property
    def axes(self) -> Axes:
        """All axes in the order of the weight."""
        return distinct(self.weight)

    def extent(self, axes: Axes) -> tuple[int, ...]:
        """Sizes of `axes`; the layout must be bound."""
        sizes = dict(self.sizes)
        return tuple(sizes[a] for a in axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(math.prod(self.extent(g)) for g in self.weight)

    @property
    def mode_shape(self) -> tuple[int, ...]:
        """Shape of the tensor that is factored."""
        return tuple(math.prod(self.extent(g)) for g in self.modes)

    @property
    def mode_groups(self) -> tuple[tuple[tuple[Axis, int], ...], ...]:
        """The axes of each mode with their sizes, as `Network.refined` takes them."""
        sizes = dict(self.sizes)
        return tuple(tuple((a, sizes[a]) for a in g) for g in self.modes)

    def to_modes(self, weight: Any) -> Any:
        """The weight as the tensor that is factored: any array with `reshape`."""
        return rearrange(weight, self.axes, distinct(self.modes), dict(self.sizes), self.mode_shape)

    def to_weight(self, tensor: Any) -> Any:
        """The factored tensor as the weight: inverse of `to_modes`."""
        return rearrange(tensor, distinct(self.modes), self.axes, dict(self.sizes), self.shape)


def rearrange(array: Any, source: Axes, target: Axes, sizes: dict[Axis, int], shape: Sequence[int]) -> Any:
    """An array over the axes `source` brought to the order `target` and to `shape`; a view if it can be."""
    split = array.reshape([sizes[a] for a in source])
    order = [source.index(a) for a in target]
    if order != sorted(order):
        split = split.permute(order) if hasattr(split, "permute") else split.transpose(order)
    return split.reshape(list(shape))


@lru_cache
def _parse(text: str) -> Layout:
    left, arrow, right = text.partition("->")
    if not arrow or "->" in right:
        raise LayoutError(f'layout "{text}" has no single "->".', 'Write it as "o i -> o i".')
    sizes: dict[Axis, int] = {}
    weight, modes = (_groups(side, text, sizes) for side in (left, right))
    axes, used = ([a for g in groups for a in g] for groups in (weight, modes))
    if len(set(axes)) < len(axes) or sorted(axes) != sorted(used):
        raise LayoutError(
            f'layout "{text}" has the axes {axes} on its left and {used} on its right.',
            "Name every axis exactly once on each side.",
        )
    return Layout(weight, modes, tuple(sizes.items()))


def _groups(side: str, text: str, sizes: dict[Axis, int]) -> Groups:
    if _GROUP.sub("", side).strip() or not side.strip():
        raise LayoutError(f'layout "{text}" cannot be read at "{side.strip()}".', "Check its parentheses.")
    return tuple(_axes(inner or single, text, sizes) for inner, single in _GROUP.findall(side))


def _axes(group: str, text: str, sizes: dict[Axis, int]) -> Axes:
    found = [(word, _AXIS.fullmatch(word)) for word in group.split()]
    for word, match in found:
        if match is None:
            raise LayoutError(
                f'layout "{text}" has "{word}" where an axis should be.',
                'Axes are in small letters and digits, with a size if need be: "o", "i0", "o1=16".',
            )
        if match[2]:
            sizes[match[1]] = int(match[2])
    return tuple(match[1] for _, match in found if match)


def _show(group: Axes, known: dict[Axis, int]) -> str:
    words = [f"{a}={known[a]}" if a in known else a for a in group]
    return words[0] if len(words) == 1 else f"({' '.join(words)})"


def _example(group: Axes, n: int) -> str:
    return ", ".join(f"{a}={k}" for a, k in zip(group, balanced(n, len(group)), strict=True))


def balanced(n: int, parts: int) -> tuple[int, ...]:
    """`n` as a product of `parts` whole numbers that are as equal as its divisors allow, in rising order.

    >>> balanced(512, 2), balanced(48, 2), balanced(7, 2)
    ((16, 32), (6, 8), (1, 7))
    """
    if parts == 1:
        return (n,)
    root = round(n ** (1 / parts))
    first = max(d for d in range(1, max(root, 1) + 1) if n % d == 0)
    return tuple(sorted((first, *balanced(n // first, parts - 1))))
