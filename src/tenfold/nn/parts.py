"""The linear layers that attention and recurrent modules are made of, each with choices of its own."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.core.layout import Layout
from tenfold.formats import Ranks, formats
from tenfold.nn.base import Decompose
from tenfold.nn.linear import FactorizedLinear
from tenfold.nn.moments import scaled_to

FORMAT, LAYOUT = "lowrank", "o i -> o i"
"""Where nothing is chosen: a matrix as it is."""

PartRanks = Ranks | Mapping[str, Ranks | None] | None
PartTexts = str | Mapping[str, str] | None
PartMethods = Decompose | Mapping[str, Decompose | None] | None


@dataclass(frozen=True)
class Choice:
    """What one part is to be; an `nn.Linear` if `rank` is None."""

    rank: Ranks | None
    format: str
    layout: str


def choices(parts: Sequence[str], rank: PartRanks, format: PartTexts, layout: PartTexts) -> dict[str, Choice]:
    """What every part is to be, where each argument is one choice for all parts or a mapping from parts.

    Parts that a mapping of ranks does not name stay dense.

    >>> choices(("q", "k"), {"q": 4}, "tt", None)["q"]
    Choice(rank=4, format='tt', layout='o i -> o i')

    Raises:
        OptionError: if a part is named that there is not, or has a format or layout but no rank.
    """
    ranks = per_part(parts, "rank", rank)
    texts = [per_part(parts, "format", format), per_part(parts, "layout", layout)]
    dense = [p for p in parts if ranks[p] is None]
    for option, choice in (("format", format), ("layout", layout)):
        refuse_idle(option, choice, dense, parts, "rank")
    return {p: Choice(ranks[p], texts[0][p] or FORMAT, texts[1][p] or LAYOUT) for p in parts}


def per_part(parts: Sequence[str], option: str, choice: Any) -> dict[str, Any]:
    """The choice for every part; None where a mapping does not name it.

    Names of parts are in small letters: ranks by bond, whose names are in capitals, are one choice.
    """
    if not by_part(choice):
        return dict.fromkeys(parts, choice)
    if unknown := [name for name in choice if name not in parts]:
        raise OptionError(
            f"{option} names {', '.join(map(repr, unknown))}, but the parts are {', '.join(parts)}.",
            "Name parts.",
        )
    return {p: choice.get(p) for p in parts}


def by_part(choice: Any) -> bool:
    """Whether a choice is a mapping from parts."""
    return isinstance(choice, Mapping) and not (choice and all(str(key)[:1].isupper() for key in choice))


def refuse_idle(option: str, choice: Any, dense: Sequence[str], parts: Sequence[str], without: str) -> None:
    """Raise OptionError if something is chosen for parts that stay dense, so that it would do nothing."""
    if by_part(choice):
        idle = [p for p in dense if choice.get(p) is not None]
    else:
        idle = list(dense) if choice is not None and len(dense) == len(parts) else []
    if idle:
        raise OptionError(
            f"{option} came for {', '.join(idle)}, but no {without}.",
            f"Give a {without}, or leave the {option} out.",
        )


def new_part(
    inputs: int,
    outputs: int,
    choice: Choice,
    std: float,
    bias: nn.Parameter | None,
    example: Sequence[int] | None,
    like: Tensor,
) -> nn.Linear | FactorizedLinear:
    """A linear layer whose dense weight has the deviation `std`: uniform, or of normal factors."""
    shell = nn.Linear(inputs, outputs, bias=False, device="meta", dtype=like.dtype)
    shell.bias = bias  # type: ignore[assignment]
    if choice.rank is None:
        weight = torch.empty(outputs, inputs, dtype=like.dtype, device=like.device)
        shell.weight = nn.Parameter(weight.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std))
        return shell
    layout = Layout.parse(choice.layout).bind((outputs, inputs), "FactorizedLinear")
    value = scaled_to(formats[choice.format].random(layout.mode_shape, choice.rank, like=like, std=std), std)
    return FactorizedLinear.from_dense(shell, value, layout, planned(example, inputs))


def fittings(
    parts: Sequence[str], method: PartMethods, ranks: PartRanks, layout: PartTexts
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Method, ranks and layout for every part, all of them None where it stays dense.

    Parts that a mapping of methods does not name stay dense.

    Raises:
        OptionError: if a part is named that there is not, or has ranks or a layout but no method.
    """
    methods = per_part(parts, "method", method)
    dense = [p for p in parts if methods[p] is None]
    for option, choice in (("ranks", ranks), ("layout", layout)):
        refuse_idle(option, choice, dense, parts, "method")
    each, texts = per_part(parts, "ranks", ranks), per_part(parts, "layout", layout)
    return methods, each, {p: texts[p] or LAYOUT for p in parts}


def fitted_part(
    dense: nn.Linear,
    method: Decompose | None,
    ranks: Ranks | None,
    layout: str,
    example: Sequence[int] | None,
) -> nn.Linear | FactorizedLinear:
    """The layer with its weight fitted, or a copy if there is no method."""
    if method is None:
        return copy.deepcopy(dense)
    return FactorizedLinear.decomposed(dense, method, ranks, layout, planned(example, dense.in_features))


def planned(example: Sequence[int] | None, features: int) -> tuple[int, ...] | None:
    """The shape of the input of a part, whose features may be others than those of the module's input."""
    return None if example is None else (*example[:-1], features)


def dense_part(name: str, part: nn.Module) -> nn.Linear:
    """A dense linear layer that computes the same as a part, with memory of its own.

    Raises:
        UnsupportedError: if the part has been replaced by something that is no linear layer.
    """
    if isinstance(part, FactorizedLinear):
        return part.to_dense()
    if isinstance(part, nn.Linear):
        return copy.deepcopy(part)
    raise UnsupportedError(
        f"'{name}' is a {type(part).__name__}, which has no dense weight.",
        "Parts are nn.Linear or FactorizedLinear.",
    )
