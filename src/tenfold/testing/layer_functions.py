"""The laws of a layer as a function of its parameters: `torch.func`."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from tenfold.testing.calls import Call, complete, results, upstream
from tenfold.testing.compare import assert_equal
from tenfold.testing.layers import assert_all_equal


def check_ensemble(layer: nn.Module, x: Tensor | Call) -> None:
    """`stack_module_state` and `vmap` run several layers at once, each with its own parameters and input."""
    call, other = Call.of(x), copy.deepcopy(layer)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    layers = [layer, other]
    inputs = pairs(call)
    parameters, buffers = stack_module_state(layers)

    def run(p: Any, b: Any, *i: Tensor) -> list[Tensor]:
        return results(functional_call(layer, (p, b), i, dict(call.settings)))

    y = vmap(run)(parameters, buffers, *inputs)
    for k, module in enumerate(layers):
        alone = module(*(i[k] for i in inputs), **call.settings)
        assert_all_equal([t[k] for t in y], alone, f"{complete(layer)} in an ensemble")


def check_sample_gradients(layer: nn.Module, x: Tensor | Call) -> None:
    """`vmap` of `grad` gives the gradient of each sample, as one sample after the other does."""
    call, parameters = Call.of(x), {name: p.detach() for name, p in layer.named_parameters()}
    inputs = pairs(call)
    slopes = upstream(call(layer))

    def loss(p: Any, *i: Tensor) -> Tensor:
        y = results(functional_call(layer, p, i, dict(call.settings)))
        return sum((t * g).sum().real for t, g in zip(y, slopes, strict=True))  # type: ignore[return-value]

    found = vmap(grad(loss), (None, *[0] * len(inputs)))(parameters, *inputs)
    for k in range(2):
        for name, g in grad(loss)(parameters, *(i[k] for i in inputs)).items():
            assert_equal(found[name][k], g, f"{complete(layer)}, gradient of a sample in {name}")


def pairs(call: Call) -> tuple[Tensor, ...]:
    """Two samples of every input; the first input of the second one is turned round."""
    first, *others = call.inputs()
    return torch.stack([first, first.flip(0)]), *(torch.stack([i, i]) for i in others)


FUNCTION_LAWS = (check_ensemble, check_sample_gradients)
