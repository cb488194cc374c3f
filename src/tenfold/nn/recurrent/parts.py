"""The linear layers that a recurrent module is made of: new, fitted, or those of torch's module."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.formats import Ranks
from tenfold.nn.attention.dense import linear
from tenfold.nn.base import Decompose, new_bias
from tenfold.nn.parts import FORMAT, LAYOUT, Choice, dense_part, fitted_part, new_part
from tenfold.nn.recurrent.options import RecurrentOptions

Same = Literal["same"]
"""For hidden weights: what is chosen for input weights."""


class Parts(NamedTuple):
    """The linear layers, one of each kind for every direction of every layer: layer 0 forwards, layer 0
    backwards, layer 1 forwards, and so on. No projections where there are none.
    """

    inputs: list[nn.Module]
    hiddens: list[nn.Module]
    projections: list[nn.Module]


@dataclass(frozen=True)
class Fitting:
    """How one kind of weights is decomposed; not at all if there is no method."""

    method: Decompose | None
    ranks: Ranks | None
    layout: str | None

    def __post_init__(self) -> None:
        if self.method is None and (self.ranks is not None or self.layout is not None):
            raise OptionError(
                f"ranks={self.ranks} and layout={self.layout} came without a method.", "Give a method."
            )


def choice(name: str, rank: Ranks | None, format: str | None, layout: str | None) -> Choice:
    """What one kind of weights is to be; raises OptionError for a format or layout without a rank."""
    if rank is None and (format is not None or layout is not None):
        raise OptionError(
            f"{name}format={format} and {name}layout={layout} came without a rank.", f"Give {name}rank."
        )
    return Choice(rank, format or FORMAT, layout or LAYOUT)


def proj_choice(proj_size: int, rank: Ranks | None, format: str | None, layout: str | None) -> Choice:
    """What projections are to be; raises OptionError for a rank of what is not there."""
    if rank is not None and not proj_size:
        raise OptionError(f"proj_rank={rank} came, but there is no projection.", "Give proj_size.")
    return choice("proj_", rank, format, layout)


def hidden_choice(
    inputs: Choice, rank: Ranks | Same | None, format: str | None, layout: str | None
) -> Choice:
    """What hidden weights are to be, where nothing else is said the same as input weights.

    >>> hidden_choice(Choice(4, "tt", "o i -> o i"), "same", "cp", None)
    Choice(rank=4, format='cp', layout='o i -> o i')
    """
    if rank == "same":
        rank = inputs.rank
    if rank is None:
        return choice("hidden_", rank, format, layout)
    return Choice(rank, format or inputs.format, layout or inputs.layout)


def new_parts(
    options: RecurrentOptions,
    gates: int,
    choices: tuple[Choice, Choice, Choice],
    example: Sequence[int] | None,
    like: Tensor,
) -> Parts:
    """Random layers, whose dense weights have the deviation of torch's: 1 / sqrt(3 hidden_size)."""
    hidden, outputs = options.hidden_size, gates * options.hidden_size
    std = 1 / math.sqrt(3 * hidden)

    def part(inputs: int, outputs: int, choice: Choice, biased: bool) -> nn.Module:
        bias = new_bias(outputs, hidden, like) if biased else None
        return new_part(inputs, outputs, choice, std, bias, example, like)

    inputs = [part(n, outputs, choices[0], options.bias) for n in options.features]
    hiddens = [part(options.output_size, outputs, choices[1], options.bias) for _ in options.features]
    count = len(options.features) if options.proj_size else 0
    return Parts(inputs, hiddens, [part(hidden, options.proj_size, choices[2], False) for _ in range(count)])


def fitted_parts(
    parts: Parts, fittings: tuple[Fitting, Fitting, Fitting], example: Sequence[int] | None
) -> Parts:
    """The dense layers with their weights decomposed, or copies of them."""
    if fittings[-1].method is not None and not parts.projections:
        raise OptionError("proj_method came, but there is no projection.", "Leave it out.")

    def fitted(layers: list[nn.Module], how: Fitting) -> list[nn.Module]:
        layout = how.layout or LAYOUT
        return [fitted_part(x, how.method, how.ranks, layout, example) for x in layers]  # type: ignore[arg-type]

    return Parts(*(fitted(layers, how) for layers, how in zip(parts, fittings, strict=True)))


def opened_parts(dense: nn.RNNBase, kind: type[nn.RNNBase]) -> Parts:
    """The weights of torch's module as linear layers, which have its parameters.

    Raises:
        UnsupportedError: for other types, also subclasses: they may compute something else.
    """
    if type(dense) is not kind:
        raise UnsupportedError(f"a {type(dense).__name__} came.", f"Give an nn.{kind.__name__} itself.")

    def layers(name: str) -> list[nn.Module]:
        ends = suffixes(dense.num_layers, dense.bidirectional)
        weights = [dense.get_parameter(f"weight_{name}{end}") for end in ends]
        biases: list[Any] = [getattr(dense, f"bias_{name}{end}", None) for end in ends]
        return [linear(w, b).train(dense.training) for w, b in zip(weights, biases, strict=True)]

    return Parts(layers("ih"), layers("hh"), layers("hr") if dense.proj_size else [])


def dense_state(parts: Parts, num_layers: int, bidirectional: bool) -> dict[str, nn.Parameter]:
    """The parameters of torch's module, under its names; missing biases are zeros if there are any.

    Raises:
        UnsupportedError: if a part has been replaced by something that has no dense weight.
    """
    found: dict[str, nn.Parameter] = {}
    names = suffixes(num_layers, bidirectional)
    for kind, field, layers in zip(("ih", "hh", "hr"), Parts._fields, parts, strict=True):
        for k, layer in enumerate(layers):
            dense = dense_part(f"{field}.{k}", layer)
            found[f"weight_{kind}{names[k]}"] = dense.get_parameter("weight")
            if dense.bias is not None:
                found[f"bias_{kind}{names[k]}"] = dense.get_parameter("bias")
    if extra := [name for name in found if name.startswith("bias_hr")]:
        raise UnsupportedError(f"a projection has a bias ({', '.join(extra)}).", "Torch's have none.")
    if any(name.startswith("bias") for name in found):
        for name in [f"bias_{kind}{k}" for k in names for kind in ("ih", "hh")]:
            weight = found[name.replace("bias", "weight")]
            found.setdefault(name, nn.Parameter(torch.zeros_like(weight[:, 0]), weight.requires_grad))
    return found


def suffixes(num_layers: int, bidirectional: bool) -> list[str]:
    """How the names of torch's parameters end.

    >>> suffixes(2, True)
    ['_l0', '_l0_reverse', '_l1', '_l1_reverse']
    """
    ends = ("", "_reverse") if bidirectional else ("",)
    return [f"_l{layer}{end}" for layer in range(num_layers) for end in ends]
