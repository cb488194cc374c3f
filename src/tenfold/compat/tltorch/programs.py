"""Factors of compatible tensors in the programs of the engine."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from tenfold.core.lower import lower
from tenfold.core.network import Axes, Network
from tenfold.core.program import Program
from tenfold.core.search import Application
from tenfold.nn.execute import run

Ints = tuple[int, ...]

ROWS = 256
"""Rows of the input for which linear steps are planned."""


class Place(NamedTuple):
    """How a factor is brought to where a program takes it: split, put in order, and folded."""

    split: Ints
    order: Ints
    shape: Ints


def places_for(network: Network, program: Program) -> tuple[Place, ...]:
    """Where the program of a network takes each of its factors."""
    return tuple(
        Place(network.extent(axes), tuple(axes.index(a) for a in stored.axes), stored.shape)
        for axes, stored in zip(network.factors, program.stored, strict=True)
    )


def stored_for(arrays: Sequence[Tensor], places: Sequence[Place]) -> list[Tensor]:
    """The factors where a program takes them: views, unless two axes become one."""
    return [
        array.reshape(place.split).permute(place.order).reshape(place.shape)
        for array, place in zip(arrays, places, strict=True)
    ]


def linear_program(network: Network, inputs: Axes, outputs: Axes) -> Program:
    """The cheapest order in which an input (..., inputs) meets the factors; planned once for each network."""
    return lower(Application(network, inputs, outputs, rows=ROWS))


def multiplied(
    x: Tensor,
    arrays: Sequence[Tensor],
    network: Network,
    inputs: Axes,
    outputs: Axes,
    bias: Tensor | None = None,
) -> Tensor:
    """x (..., inputs), the modes `inputs` in one axis, times the factors: (..., outputs)."""
    program = linear_program(network, inputs, outputs)
    return run(program, x, stored_for(arrays, places_for(network, program)), bias)


def without(network: Network, modes: Axes) -> Network:
    """The network after one entry of each of these modes was taken out of the factors that carry them."""
    factors = tuple(tuple(a for a in f if a not in modes) for f in network.factors)
    left = tuple(m for m in network.modes if m not in modes)
    return Network(factors, left, tuple((a, n) for a, n in network.sizes if a not in modes))


def entry_of(
    arrays: Sequence[Tensor], graph: Sequence[Axes], modes: Axes, index: Sequence[int]
) -> list[Tensor]:
    """The factors after entry `index` was taken out of `modes`; `graph` has the axes of each."""
    found = []
    for array, axes in zip(arrays, graph, strict=True):
        own = list(axes)
        for m, k in zip(modes, index, strict=True):
            if m in own:
                array = array.select(own.index(m), k)
                own.remove(m)
        found.append(array)
    return found
