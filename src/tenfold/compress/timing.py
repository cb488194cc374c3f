"""The times of one kind of layer: dense, and with factors of a few ranks."""

import logging
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenfold.compress.surface import Knots, points, spread
from tenfold.core.errors import ModelError
from tenfold.core.layout import Layout
from tenfold.core.network import Axis
from tenfold.formats import Format, formats
from tenfold.measure import interleaved
from tenfold.nn import replacement

CALLS = {"cuda": 10}
"""How often a layer runs for one timing: a GPU is waited for once in so many calls, as in a network."""

Clock = Callable[[Mapping[str, nn.Module], Tensor], Mapping[str, float]]
"""Layers by name and an input for each of them; how many seconds each takes for it."""

YARDSTICK = {"cuda": 2048}
"""The size of the matrices of the yardstick, 256 where nothing else is said."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Question:
    """A dense layer, what may take its place, and the shape of the input: all that the times depend on."""

    dense: nn.Module
    kind: type[Format]
    layout: Layout
    example: tuple[int, ...]
    whole: tuple[int, ...] = ()

    @property
    def weight(self) -> Tensor:
        """The dense weight."""
        return self.dense.get_parameter("weight")

    @property
    def layer(self) -> str:
        """What says how long the dense layer takes."""
        settings = f"{type(self.dense).__name__}({self.dense.extra_repr()})"
        return f"{settings}, {str(self.weight.dtype).removeprefix('torch.')}, input {list(self.example)}"

    @property
    def form(self) -> str:
        """What says, beside the layer and the ranks, how long its factors take."""
        whole = f", whole {list(self.whole)}" if self.whole else ""
        return f"{formats.name_of(self.kind)}, {self.layout}{whole}"

    @property
    def knots(self) -> Knots:
        """The ranks to measure."""
        return spread(self.kind.full(self.layout.mode_shape, self.whole))

    def cut(self, ranks: Mapping[Axis, int]) -> dict[Axis, int]:
        """The ranks cut to what their bonds can carry."""
        return self.kind.skeleton(self.layout.mode_shape, ranks).ranks

    def factorized(self, ranks: Mapping[Axis, int], device: torch.device) -> nn.Module:
        """The layer of these ranks, with random factors."""
        like = torch.empty((), dtype=self.weight.dtype, device=device)
        shape, std = self.layout.mode_shape, math.prod(self.layout.shape[1:]) ** -0.5
        value = self.kind.random(shape, ranks, like=like, std=std, generator=0)
        return replacement(self.dense).from_dense(self.dense, value, self.layout, self.example).to(device)


@dataclass(frozen=True)
class Times:
    """Seconds of the yardstick, the dense layer as a multiple of it, and the factors as multiples of the
    dense layer at the points of the knots.

    `layers` is how many layers were timed: several ranks may be one when they are cut.
    """

    yardstick: float
    dense: float
    knots: Knots
    factors: tuple[float, ...]
    layers: int


def timed(question: Question, device: torch.device, clock: Clock) -> Times:
    """All times, taken in turn with a product of two matrices, the same for all questions: a machine that
    slows down, between two layers or for another program, changes no multiple.

    Raises:
        ModelError: if the layer is on the meta device, which runs nothing.
    """
    if device.type == "meta":
        raise ModelError(
            f"a {type(question.dense).__name__} on the meta device cannot be timed.",
            "Say where to run it: LatencyTable(device=...).",
        )
    wanted = [question.cut(ranks) for ranks in points(question.knots)]
    models = {str(ranks): question.factorized(ranks, device) for ranks in _distinct(wanted)}
    models |= {"dense": deepcopy(question.dense).to(device), "yardstick": _Yardstick(device)}
    logger.info("timing %d layers: %s as %s", len(models) - 1, question.layer, question.form)
    seconds = clock(models, _input(question).to(device))
    factors = tuple(seconds[str(ranks)] / seconds["dense"] for ranks in wanted)
    dense = seconds["dense"] / seconds["yardstick"]
    return Times(seconds["yardstick"], dense, question.knots, factors, len(models) - 1)


def _input(question: Question) -> Tensor:
    """Random numbers, or random indices for a table."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(question.dense, nn.Embedding | nn.EmbeddingBag):
        bags = isinstance(question.dense, nn.EmbeddingBag) and len(question.example) == 1
        shape = (1, *question.example) if bags else question.example
        return torch.randint(len(question.weight), shape, generator=generator)
    return torch.randn(question.example, generator=generator).to(question.weight.dtype)


def _distinct(wanted: list[dict[Axis, int]]) -> list[dict[Axis, int]]:
    return [ranks for k, ranks in enumerate(wanted) if ranks not in wanted[:k]]


def undisturbed(
    models: Mapping[str, nn.Module], example: Tensor, warmup: int, repeats: int
) -> dict[str, float]:
    """Seconds of one call of each, taken in turn: the 10th percentile, as other programs only ever add time.

    A median is as good on a machine that has nothing else to do; on a busy one it may be three times as long
    for one layer and right for the next.

    >>> sorted(undisturbed({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, torch.ones(1, 2), 1, 3))
    ['a', 'b']
    """
    calls = CALLS.get(example.device.type, 1)
    repeated = {name: _Repeated(model, calls) for name, model in models.items()}
    found = interleaved(repeated, example, warmup=warmup, repeats=repeats)
    return {name: time.low / calls for name, time in found.items()}


class _Yardstick(nn.Module):
    """A product of two square matrices; the input is not looked at."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        size = YARDSTICK.get(device.type, 256)
        self.matrix = nn.Parameter(torch.ones(size, size, device=device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix @ self.matrix


class _Repeated(nn.Module):
    """A layer that runs several times for one call."""

    def __init__(self, layer: nn.Module, calls: int) -> None:
        super().__init__()
        self.layer, self.calls = layer, calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            y = self.layer(x)
        return y
