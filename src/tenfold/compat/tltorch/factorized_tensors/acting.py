"""What acts on the bonds of a factorized tensor: tensor dropout and lasso, which are forward hooks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tenfold.core.network import Axes, Axis


class BondHook(ABC):
    """A forward hook that puts a number on each rank of some bonds.

    The hook only marks the tensor: calling the tensor, and calling a layer that has it as its weight, read
    the numbers from here, so that they act the same everywhere.
    """

    thins: bool
    """Whether ranks whose number is 0 are left out when the tensor itself is called."""

    @abstractmethod
    def numbers(self, tensor: Any) -> dict[Axis, Tensor]:
        """Bond -> a number for each of its ranks; bonds that are left alone are not named."""

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        """The output as it is: see `acting`."""
        return output


def hooks_of(tensor: Any, kind: type[BondHook] = BondHook) -> list[Any]:
    """The hooks of a kind that are on a tensor."""
    return [hook for hook in tensor._forward_hooks.values() if isinstance(hook, kind)]


def remove_hook(tensor: Any, hook: BondHook) -> None:
    """Take a hook off a tensor."""
    for key, found in list(tensor._forward_hooks.items()):
        if found is hook:
            del tensor._forward_hooks[key]


def ranks_of(tensor: Any) -> dict[Axis, int]:
    """Bond -> size, in the order of the network."""
    found: dict[Axis, int] = {}
    for array, axes in zip(tensor._arrays(), tensor._graph(), strict=True):
        for axis, size in zip(axes, array.shape, strict=True):
            if not axis.startswith("m"):
                found[axis] = int(size)
    return found


def numbers_on(tensor: Any) -> dict[Axis, Tensor]:
    """What all hooks together put on each bond."""
    found: dict[Axis, Tensor] = {}
    for hook in hooks_of(tensor):
        for bond, numbers in hook.numbers(tensor).items():
            found[bond] = found[bond] * numbers if bond in found else numbers
    return found


def carrier(arrays: Sequence[Tensor], graph: Sequence[Axes], bond: Axis) -> int:
    """The smallest factor on a bond, into which its numbers are multiplied."""
    best = -1
    for k, axes in enumerate(graph):
        if bond in axes and (best < 0 or arrays[k].numel() < arrays[best].numel()):
            best = k
    return best


def acting(tensor: Any) -> Any:
    """The tensor with what acts on its bonds multiplied in, dropped ranks left out; itself if nothing
    does."""
    hooks = hooks_of(tensor)
    if not hooks:
        return tensor
    numbers = numbers_on(tensor)
    if not numbers:
        return tensor
    arrays, graph = tensor._arrays(), tensor._graph()
    thins = any(hook.thins for hook in hooks)
    for bond, each in numbers.items():
        holders = [k for k, axes in enumerate(graph) if bond in axes]
        first = carrier(arrays, graph, bond)
        arrays[first] = arrays[first] * each.to(arrays[first].dtype).view(
            [-1 if a == bond else 1 for a in graph[first]]
        )
        if thins:
            kept = each.detach().nonzero().squeeze(-1)
            for k in holders:
                arrays[k] = arrays[k].index_select(graph[k].index(bond), kept)
    return tensor._over(arrays)
