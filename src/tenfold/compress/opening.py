"""Modules with several weights, such as `nn.LSTM`, seen as the linear layers that they are made of."""

from collections import Counter
from collections.abc import Iterable
from copy import copy

from torch import nn

from tenfold.core.errors import UnsupportedError
from tenfold.nn import FactorizedLayer
from tenfold.nn.composite import Composite, opening


def opened(model: nn.Module) -> nn.Module:
    """The model with its recurrent and attention modules made of linear layers, which are sites then.

    What comes back computes the same in the same memory, and shares all other modules with `model`, which is
    left as it was. A model without such modules comes back itself. Modules with hooks, and those that share
    a parameter with another module, stay closed.

    >>> model = nn.Sequential(nn.MultiheadAttention(8, 2))
    >>> [name for name, part in opened(model).named_modules() if isinstance(part, nn.Linear)]
    ['0.q_proj', '0.k_proj', '0.v_proj', '0.out_proj']
    """
    shared = _shared(model)
    seen: dict[int, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if id(module) not in seen:
            seen[id(module)] = _opened(module, shared) or with_children(module)
        return seen[id(module)]

    def with_children(module: nn.Module) -> nn.Module:
        children = {name: part and visit(part) for name, part in module._modules.items()}
        if all(part is module._modules[name] for name, part in children.items()):
            return module
        twin = copy(module)
        twin.__dict__["_modules"] = children
        return twin

    return visit(model)


def open_(model: nn.Module, names: Iterable[str] | None = None) -> None:
    """Open modules in place: those that must be for the model to have submodules of these names, or all.

    Parameters keep their memory but not their identity: build optimizers after this call.

    Raises:
        UnsupportedError: if that is the model itself, which nobody can replace in place.
    """
    shared = _shared(model)
    for name in [name for name, _ in model.named_modules()] if names is None else names:
        for path in closed_above(model, name):
            module = _opened(model.get_submodule(path), shared)
            if module is None:
                continue
            if path == "":
                raise UnsupportedError("the model is a single layer.", "Wrap it: nn.Sequential(layer).")
            _put_everywhere(model, model.get_submodule(path), module)


def close_(model: nn.Module) -> None:
    """Make torch's own modules, in place, of those that were opened and have no factorized part."""
    dense: dict[int, nn.Module] = {}
    for _, module in list(model.named_modules()):
        if isinstance(module, Composite) and module is not model and all_plain(module):
            _put_everywhere(model, module, dense.setdefault(id(module), module.to_dense()))


def all_plain(module: Composite) -> bool:
    """Whether no part of it is factorized."""
    return not any(isinstance(part, FactorizedLayer) for part in module.modules())


def closed_above(model: nn.Module, name: str) -> Iterable[str]:
    """The paths above and at `name`, outermost first, that are in the model."""
    parts = name.split(".") if name else []
    known = dict(model.named_modules())
    for length in range(len(parts) + 1):
        path = ".".join(parts[:length])
        if path in known and opening(known[path]) is not None:
            yield path


def _opened(module: nn.Module, shared: set[int]) -> nn.Module | None:
    """The module made of linear layers; None if there is no such thing."""
    how = opening(module)
    if how is None or module._forward_hooks or module._forward_pre_hooks:
        return None
    if any(id(p) in shared for p in module.parameters()):
        return None
    return how(module)


def _shared(model: nn.Module) -> set[int]:
    """The parameters that stand in several modules."""
    places = Counter(
        id(p) for module in model.modules() for p in module._parameters.values() if p is not None
    )
    return {key for key, times in places.items() if times > 1}


def _put_everywhere(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module where another one stands, under all its names."""
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, new)
