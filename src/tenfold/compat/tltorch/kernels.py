"""Programs of convolutions whose kernel is a factorized tensor."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor

from tenfold.compat.tltorch.programs import Place, places_for, stored_for
from tenfold.core.errors import ShapeError, UnsupportedError
from tenfold.core.lower import lower
from tenfold.core.network import Network
from tenfold.core.program import Program
from tenfold.core.search import Application
from tenfold.nn.convolution.options import ConvOptions
from tenfold.nn.execute import run

LENGTH, BATCH = 28, 8
"""The input for which the steps are planned."""


class KernelPlan(NamedTuple):
    """The steps of a convolution, and where they take the factors."""

    program: Program
    places: tuple[Place, ...]


@lru_cache(maxsize=1024)
def kernel_plan(network: Network, outputs_last: bool, options: ConvOptions) -> KernelPlan:
    """The cheapest order in which an input meets a kernel.

    The modes are (out, in, *taps), or, as trains have them, (in, *taps, out). With groups the outputs are
    split into the groups, which the input has too, and the rest.
    """
    modes = network.modes
    out, inner, *taps = (modes[-1], *modes[:-1]) if outputs_last else modes
    if not 1 <= len(taps) <= 3:
        raise UnsupportedError(
            f"a kernel came with {len(taps)} axes that slide.", "torch convolves over 1, 2 or 3 of them."
        )
    size, groups = network.size_of, options.groups
    split = [("g", groups), ("o", size[out] // groups)] if groups > 1 else [(out, size[out])]
    network = network.refined([split if m == out else [(m, size[m])] for m in modes])
    outputs = tuple(a for a, _ in split)
    windows = options.windows(network.extent(tuple(taps)), (LENGTH,) * len(taps))
    slides = tuple(zip(taps, windows, strict=True))
    app = Application(network, (*outputs[:-1], inner), outputs, slides, BATCH)
    program = lower(app)
    return KernelPlan(program, places_for(network, program))


def convolved(x: Tensor, arrays: Sequence[Tensor], plan: KernelPlan, bias: Tensor | None) -> Tensor:
    """(batch, in, *positions) -> (batch, out, *positions); the batch may be missing."""
    order = plan.program.dimensions
    if x.ndim == order + 1:
        return convolved(x.unsqueeze(0), arrays, plan, bias).squeeze(0)
    if x.ndim != order + 2:
        raise ShapeError(f"an input {tuple(x.shape)} came.", f"Give (batch, channels, {order} axes).")
    return run(plan.program, x, stored_for(arrays, plan.places), bias)


def each(value: Any, order: int) -> tuple[int, ...]:
    """A number for each axis, from an int, a sequence or an array."""
    numbers = (
        (value,) * order if hasattr(value, "__index__") and not hasattr(value, "shape") else tuple(value)
    )
    if len(numbers) != order:
        raise ShapeError(f"{numbers} came for {order} axes that slide.", "Give one number, or one for each.")
    return tuple(int(n) for n in numbers)
