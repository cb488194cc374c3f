"""Two steps in turn: the weights learn while they are drawn to a format, and the format follows the weights.

To minimise L(W) over weights that a format can hold, L(W) is minimised with W = Z for a Z that it can hold,
by the augmented Lagrangian, with multipliers U scaled by the strength μ:

    learning step      W = argmin L(W) + μ/2 ‖W - Z + U‖²
    compression step   Z = the nearest to W + U that the format can hold
    multipliers        U = U + W - Z

With a fixed plan this is ADMM. With ranks that each compression step chooses and a μ that grows it is the
learning-compression algorithm, whose multipliers are λ = -μ U.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import hypot, inf
from time import perf_counter

import torch
from torch import nn

from tenfold.compress.plan import LayerPlan, Plan
from tenfold.compress.training.projection import Weights, distance, holding, layers_of, projected, weights_of
from tenfold.compress.training.pull import Pull
from tenfold.core.errors import OptionError

Learn = Callable[[nn.Module, Pull, int], object]
"""learn(model, penalty, round): trains the model in place with the penalty added to its loss."""
Choose = Callable[[nn.Module, float], Plan]
"""choose(model, mu): the plan for the weights that the model has."""


@dataclass(frozen=True)
class Round:
    """One learning and one compression step; round 0 is the start.

    `gap` is ‖W - Z‖ / ‖W‖ over all weights in the plan, an upper bound of what decomposing them would lose;
    `moved` is ‖Z - Z before‖ / ‖W‖; `stored` are the elements that the plan stores for these weights.
    """

    number: int
    mu: float
    gap: float
    moved: float
    stored: int
    seconds: float


@dataclass(frozen=True)
class Induced:
    """The plan that the weights are now fit for, ready for `apply_`, and how they came there."""

    plan: Plan
    trace: tuple[Round, ...]


@dataclass(frozen=True)
class Schedule:
    """How strong the pull is, and when to stop."""

    mu: float
    growth: float
    rounds: int
    tol: float

    def __post_init__(self) -> None:
        ranges = {
            f"a strength > 0, got {self.mu}": 0 < self.mu < inf,
            f"growth >= 1, got {self.growth}": 1 <= self.growth < inf,
            f"rounds >= 1, got {self.rounds}": self.rounds >= 1,
            f"tol >= 0, got {self.tol}": 0 <= self.tol < inf,
        }
        for wanted, met in ranges.items():
            if not met:
                raise OptionError(f"Training towards a format needs {wanted}.", "See the docstring.")


@dataclass(frozen=True, eq=False)
class State:
    """Where the steps are: the plan, what weights are drawn to (Z), the multipliers (U), and the trace."""

    plan: Plan
    wanted: Weights = field(default_factory=dict)
    dual: Weights = field(default_factory=dict)
    trace: tuple[Round, ...] = ()

    @property
    def layers(self) -> dict[str, LayerPlan]:
        """Name of the weight -> what is planned for it."""
        return layers_of(self.plan)

    def pull(self, mu: float) -> Pull:
        """μ/2 ‖W - (Z - U)‖²."""
        return Pull({name: z - self.dual[name] for name, z in self.wanted.items()}, mu)


def first(model: nn.Module, choose: Choose, mu: float, seed: int) -> State:
    """Round 0: the weights as they are, and the nearest ones; no multipliers yet."""
    start = perf_counter()
    state = _follow(model, choose, State(Plan({})), mu, seed, start)
    return replace(state, dual={name: torch.zeros_like(u) for name, u in state.dual.items()})


def alternate(
    model: nn.Module,
    learn: Learn,
    choose: Choose,
    schedule: Schedule,
    state: State,
    seed: int,
    done: Callable[[State], object],
) -> Induced:
    """The rounds that are left after `state`; `done` is told the state after each."""
    while not _ends(state, schedule):
        start, number = perf_counter(), len(state.trace)
        mu = schedule.mu * schedule.growth ** (number - 1)
        learn(model, state.pull(mu), number)
        state = _follow(model, choose, state, mu, seed, start)
        state = replace(state, dual={name: u / schedule.growth for name, u in state.dual.items()})
        done(state)
    return Induced(state.plan, state.trace)


def _ends(state: State, schedule: Schedule) -> bool:
    last = state.trace[-1]
    return last.number >= schedule.rounds or (last.number > 0 and last.gap <= schedule.tol)


def _follow(model: nn.Module, choose: Choose, state: State, mu: float, seed: int, start: float) -> State:
    """The compression step, and the multipliers after it, scaled by the μ that they were learned with.

    A weight that the plan leaves dense is its own projection, has no multipliers, and is not drawn.
    """
    before = weights_of(model, state.layers)
    with holding(model, {name: w + state.dual[name] for name, w in before.items()}):
        plan = choose(model, mu)
    layers = layers_of(plan)
    weights = weights_of(model, layers)
    targets = {name: w + state.dual[name] if name in state.dual else w for name, w in weights.items()}
    wanted = projected(targets, layers, state.wanted, state.layers, seed)
    dual = {name: targets[name] - z for name, z in wanted.items()}
    told = _round(state, weights, wanted, layers, mu, perf_counter() - start)
    return State(plan, wanted, dual, (*state.trace, told))


def _round(
    state: State,
    weights: Weights,
    wanted: Weights,
    layers: Mapping[str, LayerPlan],
    mu: float,
    seconds: float,
) -> Round:
    whole = hypot(*(distance(w, torch.zeros_like(w)) for w in weights.values())) or 1.0
    gap = hypot(*(distance(w, wanted[name]) for name, w in weights.items()))
    moved = hypot(*(distance(z, wanted[name]) for name, z in state.wanted.items() if name in wanted))
    stored = sum(layer.numel(tuple(weights[name].shape)) for name, layer in layers.items())
    return Round(len(state.trace), mu, gap / whole, moved / whole, stored, seconds)
