"""Parameters and buffers that stand in several places of a model, and do so again after loading."""

from collections import defaultdict
from collections.abc import Sequence

from torch import nn

Place = tuple[str, str]
"""The name of a module, and that of its parameter or buffer."""


def places_of_tied(model: nn.Module) -> list[list[Place]]:
    """The places of every tensor that stands in several.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> net[1].weight = net[0].weight
    >>> places_of_tied(net)
    [[('0', 'weight'), ('1', 'weight')]]
    """
    places: dict[int, list[Place]] = defaultdict(list)
    for name, module in model.named_modules():
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                places[id(tensor)].append((name, key))
    return [found for found in places.values() if len(found) > 1]


def tie_(model: nn.Module, groups: Sequence[Sequence[Place]]) -> None:
    """Put the tensor at the first place of every group into the others, where it has the same memory there.

    It has not if the arrays that were loaded are not tied: then each place keeps its own.
    """
    for (name, key), *others in groups:
        tensor = getattr(model.get_submodule(name), key)
        for place, key_there in others:
            module = model.get_submodule(place)
            if getattr(module, key_there).data_ptr() == tensor.data_ptr():
                setattr(module, key_there, tensor)
