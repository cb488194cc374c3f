"""Outputs of named modules, caught while a model runs, and how far two of them are apart."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial

from torch import Tensor, nn

from tenfold.core.errors import SelectionError, ShapeError, UnsupportedError

TINY = 1e-30


@contextmanager
def capturing(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Until left, every forward pass puts the outputs of the named modules into the dict that is yielded.

    They are copies, which a later in-place step does not change, and gradients flow through them. Of a module
    that returns several tensors it is the first; of one that runs twice, the last.

    Raises:
        SelectionError: if the model has no module of that name.

    >>> import torch
    >>> with capturing(nn.Sequential(nn.Flatten(), nn.ReLU()), ["0"]) as found:
    ...     with capturing(nn.ReLU(), []):
    ...         pass
    >>> found
    {}
    """
    found: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in names:
            hook = module_named(model, name).register_forward_hook(partial(_keep, found, name))
            hooks.callback(hook.remove)
        yield found


def _keep(found: dict[str, Tensor], name: str, _: nn.Module, inputs: object, output: object) -> None:
    found[name] = first_tensor(output, name).clone()


def module_named(model: nn.Module, name: str) -> nn.Module:
    """The module of that name; "" is the model itself.

    Raises:
        SelectionError: if there is none.

    >>> module_named(nn.Sequential(nn.ReLU()), "1")
    Traceback (most recent call last):
    tenfold.core.errors.SelectionError: Sequential has no module '1'.
    The names are those of model.named_modules().
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if name not in modules:
        near = get_close_matches(name, modules, n=1)
        hint = f"; did you mean '{near[0]}'?" if near and near[0] else "."
        raise SelectionError(
            f"{type(model).__name__} has no module '{name}'{hint}",
            "The names are those of model.named_modules().",
        )
    return modules[name]


def first_tensor(output: object, name: str) -> Tensor:
    """The tensor that a module returned, or the first of several.

    Raises:
        UnsupportedError: if it returned something else.
    """
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, Tensor):
        raise UnsupportedError(
            f"Module '{name}' returns {type(output).__name__}, which has no first tensor.",
            "Name a module inside it whose output is a tensor.",
        )
    return first


def relative_square(given: Tensor, wanted: Tensor, name: str) -> Tensor:
    """‖given - wanted‖² / ‖wanted‖², in float32 at least; where `wanted` is 0, ‖given‖².

    Raises:
        ShapeError: if the shapes differ.

    >>> import torch
    >>> relative_square(torch.ones(4), torch.full((4,), 2.0), "relu").item()
    0.25
    >>> relative_square(torch.ones(4), torch.zeros(4), "relu").item()
    4.0
    """
    if given.shape != wanted.shape:
        raise ShapeError(
            f"'{name}' gives {tuple(given.shape)}, but {tuple(wanted.shape)} is wanted.",
            "Match modules whose outputs have the same shape.",
        )
    given, wanted = at_least_single(given), at_least_single(wanted)
    size = wanted.square().sum()
    return (given - wanted).square().sum() / size.where(size > TINY, 1.0)


def at_least_single(values: Tensor) -> Tensor:
    """The values in float32, unless they are in float64.

    >>> import torch
    >>> at_least_single(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values.float() if values.dtype.itemsize < 4 else values
