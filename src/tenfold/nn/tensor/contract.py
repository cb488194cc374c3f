"""The dense tensor from factors as they are stored, by steps that are planned once."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from tenfold.core.contraction import lower_contraction
from tenfold.core.network import Axes, Network
from tenfold.core.program import Ints, Merge, Shuffle, Step, Stored, View
from tenfold.nn.execute import merge, view


class Contraction(NamedTuple):
    """How each stored factor is brought to the order of the network, and the steps from there.

    `splits` are the sizes of the single axes of each factor as it is stored.
    """

    splits: tuple[Ints, ...]
    views: tuple[View, ...]
    steps: tuple[Step, ...]


@lru_cache(maxsize=4096)
def contraction(network: Network, stored: tuple[Stored, ...], outputs: Axes) -> Contraction:
    """The cheapest way from two factors or more to the axes `outputs`.

    >>> network = Network((("i", "R"), ("R", "j")), ("i", "j"), (("i", 2), ("R", 3), ("j", 4)))
    >>> kept = Stored((("i",), ("R",)), (2, 3)), Stored((("j",), ("R",)), (4, 3))
    >>> contraction(network, kept, ("i", "j")).views
    (View(perm=(0, 1), shape=(2, 3)), View(perm=(1, 0), shape=(3, 4)))
    """
    splits = tuple(network.extent(s.axes) for s in stored)
    views = tuple(_view(s, axes, network) for s, axes in zip(stored, network.factors, strict=True))
    return Contraction(splits, views, lower_contraction(network, outputs).steps)


def _view(stored: Stored, axes: Axes, network: Network) -> View:
    return View(tuple(stored.axes.index(a) for a in axes), network.extent(axes))


def contract(plan: Contraction, factors: Sequence[Tensor]) -> Tensor:
    """Run a plan: static data, so that a tracer sees straight-line tensor code."""
    buffers = [
        view(f.reshape(split), how) for f, split, how in zip(factors, plan.splits, plan.views, strict=True)
    ]
    for step in plan.steps:
        if isinstance(step, Merge):
            buffers.append(merge(step, buffers[step.left], buffers[step.right]))
        elif isinstance(step, Shuffle):
            buffers.append(view(buffers[-1], View(step.perm, step.shape)))
    return buffers[-1]
