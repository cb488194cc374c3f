"""What layers share whose weight is one factorized tensor, for themselves or for several layers at once."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_tensors.acting import BondHook
from tenfold.compat.tltorch.programs import entry_of, without
from tenfold.core.errors import OptionError
from tenfold.core.network import Network, mode

Index = int | Sequence[int]


class JointLayer(nn.Module):
    """A layer, or `n_layers` of them, whose weights are one factorized tensor with a mode for each axis of
    `n_layers`. The factors of one of them are those of the tensor with that entry taken out: the others' are
    neither used nor made."""

    weight: Any
    bias: nn.Parameter | None
    n_layers: int | tuple[int, ...]
    layers_shape: tuple[int, ...]

    def _set_layers(self, n_layers: Any) -> None:
        several = isinstance(n_layers, Iterable)
        try:
            shape = tuple(operator.index(n) for n in (n_layers if several else [n_layers]))
        except TypeError:
            shape = ()
        if not shape or min(shape) < 1:
            raise OptionError(f"n_layers={n_layers!r} came.", "Give 1 or more, or a tuple of such numbers.")
        self.n_layers = shape if several else shape[0]
        self.layers_shape = () if self.n_layers == 1 else shape

    def _index(self, indices: Index) -> tuple[int, ...]:
        """Which layer is asked for, as one number for each axis of `n_layers`."""
        index = (indices,) if isinstance(indices, int) else tuple(indices)
        if not self.layers_shape:
            index = index[1:] if index == (0,) else index
        bad = any(not 0 <= k < n for k, n in zip(index, self.layers_shape, strict=False))
        if len(index) != len(self.layers_shape) or bad:
            raise OptionError(
                f"layer {indices} was asked for, of n_layers={self.n_layers}.",
                "Give 0 for a single layer, or one number from 0 on for each axis of n_layers.",
            )
        return index

    def _network(self) -> Network:
        """The network of the weight of one layer."""
        network: Network = self.weight.network
        return without(network, network.modes[: len(self.layers_shape)])

    def _factors(self, index: tuple[int, ...]) -> list[Tensor]:
        """The factors of the weight of one layer, with dropout and lasso."""
        arrays: list[Tensor] = self.weight.gated_arrays()
        if not index:
            return arrays
        modes = tuple(mode(k) for k in range(len(index)))
        return entry_of(arrays, self.weight._graph(), modes, index)

    def _foreign(self) -> bool:
        """Whether hooks that are not ours are on the weight, which say themselves what the weight is."""
        hooks = self.weight._forward_hooks.values()
        return any(not isinstance(hook, BondHook) for hook in hooks) or bool(self.weight._forward_pre_hooks)

    def _called(self, index: tuple[int, ...]) -> Any:
        """The weight of one layer by way of its hooks."""
        return self.weight(index if len(index) != 1 else index[0]) if index else self.weight()

    def _bias(self, index: tuple[int, ...]) -> Tensor | None:
        return None if self.bias is None else self.bias[index] if index else self.bias

    def __getitem__(self, indices: Index) -> nn.Module:
        """One of several layers, as a module over the same parameters."""
        if not self.layers_shape:
            raise OptionError("there is a single layer.", "Use it itself, or make several: n_layers.")
        self._index(indices)
        return SubLayer(self, indices)


class SubLayer(nn.Module):
    """One of the layers that a `main` layer holds; its parameters are all those of the main layer."""

    def __init__(self, main: JointLayer, indices: Index) -> None:
        super().__init__()
        self.main, self.indices = main, indices

    def forward(self, x: Tensor) -> Tensor:
        """What the main layer computes for this index."""
        result: Tensor = self.main(x, self.indices)
        return result

    def extra_repr(self) -> str:
        """Which one."""
        return f"indices={self.indices}"


def uniform_bias(shape: Sequence[int], fan_in: int, like: Any) -> nn.Parameter:
    """Uniform in ± 1 / sqrt(fan_in), as torch's dense layers begin."""
    made = nn.Parameter(torch.empty(tuple(shape), **like))
    with torch.no_grad():
        made.uniform_(-(fan_in**-0.5), fan_in**-0.5)
    return made


def tensor_for(factorization: Any, kind: Any, shape: Any, rank: Any, **options: Any) -> Any:
    """The weight of a layer: a new tensor of a factorization, or the tensor that came in its place."""
    if isinstance(factorization, str):
        return kind.new(shape, rank, factorization, **options)
    if not isinstance(factorization, kind):
        raise OptionError(
            f"factorization came as a {type(factorization).__name__}.",
            f"Give a name such as 'CP', or a {kind.__name__}.",
        )
    options.pop("fixed_rank_modes", None)
    return factorization.to(**{k: v for k, v in options.items() if v is not None})
