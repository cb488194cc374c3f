"""The ways that are compared: each adds to the one before it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from embeddings import embed
from torch import nn

from tenfold import Budget, Lagrangian, Uniform
from tenfold.compress import (
    InputCovariance,
    KroneckerFisher,
    Metric,
    Statistics,
    apply_,
    collect,
    correct_,
    find_sites,
    plan,
)
from tenfold.nn import FactorizedLayer
from tenfold.ranks import RankRule

SITES = r"encoder\..*"
"""The 36 linear layers of the encoder; the embedding table and what is not a matrix stay as they are."""
DRAWS = 4
"""Gradients drawn for each sentence."""
KEEPS = (0.8, 0.6, 0.4)
UNIFORM = Uniform()
WANT = InputCovariance.needs | KroneckerFisher.needs


@dataclass(frozen=True)
class Way:
    """What is used of the sentences: a metric, a rule that compares layers, a correction behind. And how the
    factors are stored."""

    metric: Metric | None = None
    rule: RankRule = UNIFORM
    correct: bool = False
    preset: str = "weight_svd"


WAYS: Mapping[str, Way] = {
    "plain SVD": Way(),
    "whitened": Way(InputCovariance()),
    "two-sided": Way(KroneckerFisher()),
    "global ranks": Way(KroneckerFisher(), Lagrangian()),
    "corrected": Way(KroneckerFisher(), Lagrangian(), correct=True),
    "pivoted": Way(KroneckerFisher(), Lagrangian(), correct=True, preset="pivoted_weight_svd"),
}


def statistics_of(dense: nn.Module, sentences: Sequence[Any], draws: int = DRAWS) -> Statistics:
    """What the layers see: moments of inputs, and of gradients by the embeddings, which need no labels."""
    sites = [site for site in find_sites(dense, sentences[0]) if site.module.startswith("encoder.")]
    return collect(dense, list(sentences) * draws, sites, want=WANT, forward=embed, loss="gaussian")


def compressed(
    dense: nn.Module, keep: float, way: Way, sentences: Sequence[Any], seen: Statistics
) -> nn.Module:
    """A copy whose encoder keeps a fraction of the elements of its linear layers."""
    small, statistics = deepcopy(dense), None if way.metric is None else seen
    chosen = plan(
        small,
        Budget(params=keep),
        example=sentences[0],
        preset=None,
        select={f"re:{SITES}": way.preset},
        rule=way.rule,
        metric=way.metric,
        statistics=statistics,
    )
    apply_(small, chosen, statistics=statistics)
    if way.correct:
        correct_(small, dense, chosen, sentences, statistics=statistics)
    return small


def stored(model: nn.Module) -> int:
    """Elements, and indices, of the weights or factors of the encoder's linear layers."""
    layers = model.get_submodule("encoder").modules()
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear | FactorizedLayer))
