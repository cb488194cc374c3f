"""The factorized networks of the published study: which convolutions, which ranks, how many parameters.

The study replaces convolutions by the factorized ones of TensorLy-Torch and keeps the same fraction of each.
All counts of parameters that it prints follow from the formulas here (a test compares them).
"""

import math
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from tenfold import Plan, find_sites, presets
from tenfold.compress import LayerPlan, Preset
from tenfold.core.network import Axis
from tenfold.formats import formats
from tenfold.measure.size import parameters
from tenfold.zoo import networks

METHODS = ("cp", "tucker", "tt")
PRESETS = {
    "cp": presets["cp4"],
    "tucker": presets["tucker2"],
    "tt": Preset("tt_chain", "tt", {"o i h w": "o i h w -> i h w o"}, pointwise="weight_svd"),
}
"""What decomposes an o×i×h×w kernel: CP of its four modes; Tucker of o and i, its taps left whole; a train
i - h - w - o. A 1×1 kernel is a matrix, of the least of the ranks."""


def touched(model: nn.Module, name: str) -> list[str]:
    """The convolutions that the study replaces: all but the first one and the shortcuts.

    Of ResNet-50 it replaces those of two blocks in each of the stages 1 to 3, and of all three in stage 4.
    """
    spared = r"shortcut|layer[123]\.[2-9]" if name == "resnet50" else "shortcut"
    found = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    return [n for n in found[1:] if not re.search(spared, n)]


def cp_ranks(shape: Sequence[int], keep: float) -> tuple[int]:
    """R (o + i + h + w) = keep · o i h w."""
    return (rounded(keep * math.prod(shape) / sum(shape)),)


def tucker_ranks(shape: Sequence[int], keep: float) -> tuple[int, int]:
    """One fraction x of o and of i: x² o i h w + x (o² + i²) + h² + w² = keep · o i h w."""
    o, i, h, w = shape
    whole = math.prod(shape)
    x = fraction(whole, o**2 + i**2, keep * whole - h**2 - w**2)
    return rounded(x * o), rounded(x * i)


def tt_ranks(shape: Sequence[int], keep: float) -> tuple[int, ...]:
    """One fraction x of the mean of the two modes that a bond lies between, i, h, w, o being in a row."""
    o, i, h, w = shape
    means = [(a + b) / 2 for a, b in pairwise((i, h, w, o))]
    inner = means[0] * h * means[1] + means[1] * w * means[2]
    x = fraction(inner, i * means[0] + means[2] * o, keep * math.prod(shape))
    return tuple(rounded(x * mean) for mean in means)


RANKS = {"cp": cp_ranks, "tucker": tucker_ranks, "tt": tt_ranks}


def fraction(square: float, linear: float, amount: float) -> float:
    """The positive x with square · x² + linear · x = amount."""
    return (math.sqrt(linear**2 + 4 * square * amount) - linear) / (2 * square)


def rounded(rank: float) -> int:
    """A rank as a whole number from 1."""
    return max(1, round(rank))


def stored(method: str, shape: Sequence[int], keep: float, raw: bool = False) -> int:
    """The numbers that the study stores for a kernel.

    CP has a weight for every component, Tucker square matrices for the taps. A train has the ranks that its
    decomposition by SVDs from left to right leaves or, `raw`, those of the formula.
    """
    o, i, h, w = shape
    ranks = RANKS[method](shape, keep)
    if method == "cp":
        return ranks[0] * (sum(shape) + 1)
    if method == "tucker":
        return ranks[0] * ranks[1] * h * w + ranks[0] * o + ranks[1] * i + h**2 + w**2
    modes = (i, h, w, o)
    ends = (1, *(ranks if raw else from_left(modes, ranks)), 1)
    return sum(left * n * right for left, n, right in zip(ends, modes, ends[1:], strict=False))


def from_left(modes: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:
    """The ranks of a train after SVDs from left to right; some may be more than is of use.

    >>> from_left((512, 3, 3, 512), (227, 3, 227))
    (227, 3, 9)
    """
    found = [1]
    for k, rank in enumerate(ranks):
        found.append(min(rank, found[-1] * modes[k], math.prod(modes[k + 1 :])))
    return tuple(found[1:])


def count(name: str, method: str, keep: float, raw: bool = False, classes: int = 10) -> int:
    """Parameters of the whole network in the study.

    >>> count("vgg16", "cp", 0.1), count("resnet18", "tucker", 0.2)
    (1491744, 2387722)
    """
    total, shapes = sizes(name, classes)
    rest = total - sum(map(math.prod, shapes))
    return rest + sum(stored(method, shape, keep, raw) for shape in shapes)


@cache
def sizes(name: str, classes: int) -> tuple[int, list[tuple[int, ...]]]:
    """Parameters of the dense network, and the kernels that the study touches."""
    with torch.device("meta"):
        model = networks[name](classes)
    kernels = [model.get_submodule(n).get_parameter("weight") for n in touched(model, name)]
    return parameters(model), [tuple(kernel.shape) for kernel in kernels]


def allowance(name: str, keep: float, classes: int = 10) -> int:
    """The parameters that a network of ours may have at `keep`: no more than the study's CP or Tucker."""
    return min(count(name, method, keep, classes=classes) for method in ("cp", "tucker"))


def study_plan(model: nn.Module, name: str, method: str, keep: float, example: Any) -> Plan:
    """The ranks of the study for every convolution that it touches, cut to those that the format can use."""
    seen = {site.module: site.example for site in find_sites(model, example)}
    return Plan({n: {"weight": _planned(model, n, method, keep, seen[n])} for n in touched(model, name)})


def _planned(
    model: nn.Module, layer: str, method: str, keep: float, example: tuple[int, ...] | None
) -> LayerPlan:
    dense = model.get_submodule(layer)
    scheme = PRESETS[method](dense, layer)
    format, modes = scheme.preset.format, scheme.layout.mode_shape
    ranks = RANKS[method](tuple(dense.get_parameter("weight").shape), keep)
    bonds: tuple[Axis, ...] = formats[format].full(modes, scheme.preset.whole).bonds
    chosen = dict(zip(bonds, (min(ranks),) if format == "lowrank" else ranks, strict=True))
    usable = formats[format].skeleton(modes, chosen).ranks
    return LayerPlan(format, str(scheme.layout), usable, scheme.preset.method, example)
