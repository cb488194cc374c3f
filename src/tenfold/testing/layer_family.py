"""What the laws of layers are run on: layer types with their layouts and options, and single layers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.errors import ShapeError
from tenfold.core.layout import Layout
from tenfold.formats import formats
from tenfold.testing.calls import Call

Options = Mapping[str, Any]
DTYPE = torch.float64


@dataclass(frozen=True)
class Family:
    """A layer type: its layouts, the first one that a format holds being its usual one, and its options.

    `make(options)` gives a layer, `call(options)` its inputs; the options contain `format` and `layout`. A
    family without layouts has no choice of a format.
    """

    layouts: Sequence[str]
    options: Sequence[Options]
    make: Callable[[Options], nn.Module]
    call: Callable[[Options], Call]
    hidden: int = 0
    """The number of modes before those that a layout shows."""


@dataclass(frozen=True)
class Case:
    """One layer: its type, what is chosen for it, and how it is called."""

    layer: str
    family: Family
    format: str
    layout: str
    options: Options

    def make(self) -> nn.Module:
        """The layer, always with the same numbers, in float64 and in training."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return self.family.make(self.chosen)

    def call(self) -> Call:
        """Its inputs."""
        return self.family.call(self.chosen)

    @property
    def chosen(self) -> Options:
        """Format and layout with the options."""
        form = {"format": self.format, "layout": self.layout} if self.family.layouts else {}
        return {**form, **self.options}

    def __str__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.chosen.items())
        return f"{self.layer}({shown})"


def holds(format: str, order: int) -> bool:
    """Whether the format holds tensors with so many modes."""
    try:
        formats[format].skeleton((2,) * order, 1)
    except ShapeError:
        return False
    return True


def modes_of(layout: str) -> Sequence[Any]:
    """The modes of a layout, or of its right side alone."""
    right = layout.rpartition("->")[2]
    return Layout.parse(f"{right} -> {right}").modes


def numbers(*shape: int) -> Tensor:
    """Random numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=DTYPE)


def indices(*shape: int) -> Tensor:
    """Random rows of a table of 12, always the same."""
    return torch.randint(12, shape, generator=torch.Generator().manual_seed(1))
