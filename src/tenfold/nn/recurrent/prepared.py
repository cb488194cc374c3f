"""Linear layers made ready for many calls with the same weights, as in a loop over time."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from tenfold.core.program import Batched, Linear, Merge, Shuffle
from tenfold.nn.execute import merge, multiply, multiply_groups, shuffle, view
from tenfold.nn.linear import FactorizedLinear

Product = Callable[[Tensor, Tensor | None], Tensor]
"""(x, added) -> x W^T + added."""
Move = Callable[[Tensor], Tensor]
"""One step of the activation."""


class Affine(NamedTuple):
    """x W^T + b taken apart: `linear(x, added)` is x W^T + added, and `bias` is what to add.

    What is added may be None, of shape (outputs,), or of the shape of the result. Weights are those of the
    moment when the layer was made ready; do not keep an `Affine` longer than a forward pass.
    """

    linear: Product
    bias: Tensor | None


MANY = 8
"""Calls from which on it pays to write a matrix anew."""


def affine(layer: nn.Module, calls: int = MANY) -> Affine:
    """The layer, ready for so many calls: its factors have met each other, once for all calls.

    A layer of another type, and one with hooks, is called as it is, each time: its `linear` then adds the
    layer's own bias, and `bias` is None.

    >>> layer = FactorizedLinear(6, 4, rank=4, format="cp", example=(1000, 6))
    >>> x, ready = torch.ones(3, 6), affine(layer)
    >>> torch.allclose(ready.linear(x, ready.bias), layer(x))
    True
    """
    if hooked(layer):
        return Affine(partial(called, layer), None)
    if type(layer) is nn.Linear:
        return Affine(product(layer.weight, calls), layer.bias)
    if type(layer) is FactorizedLinear:
        return Affine(chain(layer, calls), layer.bias)
    return Affine(partial(called, layer), None)


def hooked(layer: nn.Module) -> bool:
    """Whether something watches or changes what the layer does when it is called."""
    own = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    return bool(own or layer._backward_pre_hooks or "forward" in vars(layer) or _watched_everywhere())


def _watched_everywhere() -> bool:
    """Whether hooks are registered for all modules."""
    forward = torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks
    return bool(forward or torch_module._global_backward_hooks or torch_module._global_backward_pre_hooks)


def chain(layer: FactorizedLinear, calls: int = MANY) -> Product:
    """The steps of the layer's program without its merges, over weights that are ready for them.

    What is added goes with the last step, where that makes all outputs in one matrix product.
    """
    program, buffers = layer.program, list(layer.weight.factors())
    moves: list[Move] = []
    for step in program.steps:
        if isinstance(step, Merge):
            buffers.append(merge(step, buffers[step.left], buffers[step.right]))
        elif isinstance(step, Shuffle):
            moves.append(partial(shuffled, step))
        elif isinstance(step, Batched):
            moves.append(partial(grouped, step, view(buffers[step.weight], step.view)))
        elif isinstance(step, Linear):
            weight = view(buffers[step.weight], step.view)
            whole = step.pre == step.post == 1
            moves.append(partial(F.linear, weight=weight) if whole else partial(multiplied, step, weight))
    if not program.bias_last:
        return partial(through, moves, plus)
    last = product(weight, calls)
    return partial(through, moves[:-1], last) if len(moves) > 1 else last


def shuffled(step: Shuffle, x: Tensor) -> Tensor:
    """The channels in another order."""
    return shuffle(step, x, x.ndim - 1)


def multiplied(step: Linear, weight: Tensor, x: Tensor) -> Tensor:
    """The product with a matrix along one of the axes that lie in the channels."""
    return multiply(step, x, weight, None)


def grouped(step: Batched, weight: Tensor, x: Tensor) -> Tensor:
    """The product with one matrix for each group of channels."""
    return multiply_groups(step, x, weight)


def through(moves: list[Move], last: Product, x: Tensor, added: Tensor | None) -> Tensor:
    """The activation taken through some steps and the last product."""
    for each in moves:
        x = each(x)
    return last(x, added)


def plus(x: Tensor, added: Tensor | None) -> Tensor:
    """x + added."""
    return x if added is None else x + added


def product(weight: Tensor, calls: int = MANY) -> Product:
    """The product with a matrix, which is transposed once."""
    return partial(times, weight, transposed(weight, calls))


def transposed(weight: Tensor, calls: int) -> Tensor:
    """W^T: on a CPU written anew for many calls without gradients, a view otherwise.

    A few rows times a matrix are up to twice as fast where the rows of that matrix lie one after the other in
    memory. A gradient would go back through the copy, where the product is as much slower.
    """
    trained = torch.is_grad_enabled() and weight.requires_grad
    anew = calls >= MANY and weight.device.type == "cpu" and not trained
    return weight.t().contiguous() if anew else weight.t()


def times(weight: Tensor, transposed: Tensor, x: Tensor, added: Tensor | None) -> Tensor:
    """x W^T + added, in a single call where x is a matrix."""
    if added is None or x.ndim != 2:
        return F.linear(x, weight, added) if added is None or added.ndim == 1 else added + F.linear(x, weight)
    return torch.addmm(added, x, transposed)


def called(layer: nn.Module, x: Tensor, added: Tensor | None) -> Tensor:
    """A call of the layer, whatever it is."""
    y: Tensor = layer(x)
    return y if added is None else added + y
