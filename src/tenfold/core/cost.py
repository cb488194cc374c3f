"""What a contraction order is judged by: cost objects, given to the search."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from tenfold.core.errors import OptionError


class Work(NamedTuple):
    """What one step of a contraction does.

    `groups` matrix products of (rows × depth) by (depth × columns), as often as the kernel has `taps`;
    `elements` are read and written in all.
    """

    groups: int
    rows: int
    depth: int
    columns: int
    taps: int
    elements: int

    @property
    def multiply_adds(self) -> int:
        """Number of multiplications, each followed by an addition."""
        return self.groups * self.rows * self.depth * self.columns * self.taps


class Cost(ABC):
    """A number for a step; the search looks for the order with the smallest sum."""

    @abstractmethod
    def __call__(self, work: Work) -> float: ...


@dataclass(frozen=True)
class Flops(Cost):
    """Floating-point operations, two for each multiply-add."""

    def __call__(self, work: Work) -> float:
        return 2.0 * work.multiply_adds


@dataclass(frozen=True)
class Traffic(Cost):
    """Bytes moved between memory and the processor."""

    itemsize: int = 4

    def __call__(self, work: Work) -> float:
        return float(self.itemsize * work.elements)


@dataclass(frozen=True)
class Roofline(Cost):
    """Seconds: a step takes as long as its arithmetic or its traffic, whichever is longer, and a launch.

    Processors multiply in tiles: a product with fewer than `tile` rows of weights or columns takes as long
    as one with `tile`. (A convolution of one channel with four takes as long as one of 8 with 8.) Depthwise
    steps have kernels of their own, and are bound by their traffic.

    The defaults are a few cores of a server processor. On a GPU both rates are a hundred times higher while
    a launch costs the same, which favours fewer and larger steps: `Roofline(5e13, 2e12, 5e-6)`.

    Source: Williams, Waterman & Patterson, 'Roofline', Communications of the ACM 52(4), 2009.
    """

    flops_per_second: float = 3e11
    bytes_per_second: float = 2e10
    launch: float = 4e-6
    itemsize: int = 4
    tile: int = 8

    def __post_init__(self) -> None:
        if (
            min(self.flops_per_second, self.bytes_per_second, self.itemsize, self.tile) <= 0
            or self.launch < 0
        ):
            raise OptionError(f"{self} has a rate that is not positive.", "Give rates above 0.")

    def __call__(self, work: Work) -> float:
        arithmetic = 2.0 * self.tiled(work) / self.flops_per_second
        return max(arithmetic, self.itemsize * work.elements / self.bytes_per_second) + self.launch

    def tiled(self, work: Work) -> int:
        """Multiply-adds of whole tiles."""
        if work.depth == work.columns == 1:
            return work.multiply_adds
        depth, columns = (-(-n // self.tile) * self.tile for n in (work.depth, work.columns))
        return work.groups * work.rows * work.taps * depth * columns
