"""Slices, rows and single entries of a weight that is held as factors: its factors are indexed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tenfold.core.network import Axes, Axis
from tenfold.nn.tensor.index import (
    At,
    Item,
    New,
    Part,
    Rows,
    TensorIndexError,
    broadcast,
    digits_of,
    items_of,
)
from tenfold.nn.tensor.seen import Groups, Seen, seen


def indexed(x: Seen, index: Any) -> Seen:
    """What torch gives for `weight[index]`, held as factors.

    Slices and one array of rows, on axes that are modes, keep the format: those factors lose rows. All else
    gives a general network: a number takes a row of each factor of its axis, and its axis with it; several
    arrays are followed together, so that the factors of all their axes get a common mode.

    Raises:
        TensorIndexError: an IndexError, for what torch has no answer to either.
    """
    items = items_of(index, x.shape, x.value.device)
    try:
        return _of_modes(x, items) if _keeps_format(x, items) else _of_digits(x, items)
    except TensorIndexError:
        raise
    except IndexError as error:
        raise TensorIndexError(
            f"an array of indices has numbers out of range for a tensor of shape {x.shape}.",
            "Count from 0, or from -1 backwards.",
        ) from error


def _all_of(item: Item, x: Seen) -> bool:
    return isinstance(item, Part) and item.range == range(x.shape[item.axis])


def _keeps_format(x: Seen, items: Sequence[Item]) -> bool:
    """Whether only slices and one list of rows are asked for, of axes that are modes by themselves."""
    rows = [i for i in items if isinstance(i, Rows)]
    if len(rows) > 1 or any(isinstance(i, At | New) for i in items) or any(r.numbers.ndim != 1 for r in rows):
        return False
    return all(_all_of(i, x) or x.mode_of(i.axis) is not None for i in items)  # type: ignore[union-attr]


def _of_modes(x: Seen, items: Sequence[Item]) -> Seen:
    entries: list[Any] = [slice(None)] * len(x.value.shape)
    for item in items:
        assert isinstance(item, Part | Rows)
        if not _all_of(item, x):
            k = x.mode_of(item.axis)
            assert k is not None
            r = item.range if isinstance(item, Part) else None
            entries[k] = slice(r.start, r.stop, r.step) if r is not None else item.numbers  # type: ignore[union-attr]
    return x.resized(x.value[tuple(entries)])


@dataclass
class _Reading:
    """The factors of a weight while an index is followed: arrays, their axes, and the axes of the result."""

    arrays: list[Tensor]
    graph: list[Axes]
    groups: list[Axes] = field(default_factory=list)
    together: list[tuple[Axes, Tensor]] = field(default_factory=list)
    """Digits, and the numbers by which they are followed, all in one go."""
    places: list[int] = field(default_factory=list)
    """For each of these, the place among the groups that its axes would have."""

    def new(self, name: Axis) -> None:
        """Put in an axis of size 1."""
        self.arrays[0], self.graph[0] = self.arrays[0].unsqueeze(0), (name, *self.graph[0])

    def cut(self, entries: Mapping[Axis, int | slice]) -> None:
        """Numbers and slices of digits."""
        for k, axes in enumerate(self.graph):
            if any(a in entries for a in axes):
                self.arrays[k] = self.arrays[k][tuple(entries.get(a, slice(None)) for a in axes)]
                self.graph[k] = tuple(a for a in axes if not isinstance(entries.get(a), int))

    def follow(self, numbers: Mapping[Axis, Tensor], shape: Sequence[int], names: Axes) -> None:
        """Digits followed together by arrays of numbers; new axes `names` of sizes `shape` come of them."""
        for k, axes in enumerate(self.graph):
            if met := [a for a in axes if a in numbers]:
                rest = tuple(a for a in axes if a not in numbers)
                turned = self.arrays[k].permute([axes.index(a) for a in (*met, *rest)])
                rows = turned[tuple(numbers[a] for a in met)]
                self.arrays[k] = rows.reshape(*shape, *rows.shape[1:])
                self.graph[k] = (*names, *rest)

    def sizes(self, axes: Axes) -> tuple[int, ...]:
        """Sizes of axes, as they are now."""
        pairs = zip(self.graph, self.arrays, strict=True)
        found = {a: n for f, array in pairs for a, n in zip(f, array.shape, strict=True)}
        return tuple(found[a] for a in axes)


def _of_digits(x: Seen, items: Sequence[Item]) -> Seen:
    network = x.network
    reading = _Reading(x.factors(network), list(network.factors))
    for k, item in enumerate(items):
        _read(reading, item, x.groups, f"+{k}")
    if reading.together:
        _follow_together(reading)
    return seen(reading.arrays, reading.graph, tuple(reading.groups))


def _follow_together(reading: _Reading) -> None:
    """Follow all arrays of numbers; their axes come where they stood side by side, otherwise first."""
    numbers = broadcast([n for _, n in reading.together])
    names = tuple(f"*{d}" for d in range(numbers[0].ndim))
    found: dict[Axis, Tensor] = {}
    for (digits, _), n in zip(reading.together, numbers, strict=True):
        found |= dict(zip(digits, digits_of(n.reshape(-1), reading.sizes(digits)), strict=True))
    reading.follow(found, numbers[0].shape, names)
    place = reading.places[0] if len(set(reading.places)) == 1 else 0
    reading.groups[place:place] = [(name,) for name in names]


def _read(reading: _Reading, item: Item, groups: Groups, name: Axis) -> None:
    """Follow one item; arrays of numbers are only noted, as all of them are followed together."""
    if isinstance(item, New):
        reading.new(name)
        if item.kept is None:
            reading.groups.append((name,))
        else:
            _note(
                reading,
                (name,),
                torch.zeros(int(item.kept), dtype=torch.long, device=reading.arrays[0].device),
            )
        return
    digits = groups[item.axis]
    if isinstance(item, At):
        reading.cut(dict(zip(digits, _unravelled(item.number, reading.sizes(digits)), strict=True)))
    elif isinstance(item, Part):
        reading.groups.append(_cut_range(reading, digits, item.range, name))
    else:
        _note(reading, digits, item.numbers)


def _note(reading: _Reading, digits: Axes, numbers: Tensor) -> None:
    reading.together.append((digits, numbers))
    reading.places.append(len(reading.groups))


def _unravelled(number: int, sizes: Sequence[int]) -> list[int]:
    found: list[int] = []
    for n in reversed(sizes):
        number, digit = divmod(number, n)
        found.append(digit)
    return found[::-1]


def _cut_range(reading: _Reading, digits: Axes, r: range, name: Axis) -> Axes:
    """A range of an axis: of its first digit where it fits, otherwise row by row; gives its new digits."""
    sizes = reading.sizes(digits)
    below = math.prod(sizes[1:])
    if r == range(math.prod(sizes)):
        return digits
    if digits and (len(digits) == 1 or (r.step == 1 and r.start % below == 0 and r.stop % below == 0)):
        reading.cut({digits[0]: slice(r.start // below, r.stop // below, r.step)})
        return digits
    numbers = torch.arange(r.start, r.stop, r.step, device=reading.arrays[0].device)
    reading.follow(dict(zip(digits, digits_of(numbers, sizes), strict=True)), (len(r),), (name,))
    return (name,)
