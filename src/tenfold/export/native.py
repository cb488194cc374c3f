"""Factorized layers as chains of torch's own, for quantizers, LoRA and runtimes that look for those."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.program import Conv, Linear, Merge, Program, Transposed
from tenfold.export.fold import folded
from tenfold.nn import FactorizedLayer
from tenfold.nn.bonds.dropout import resting

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
PADS: dict[str, dict[int, type[nn.Module]]] = {
    "constant": {1: nn.ZeroPad1d, 2: nn.ZeroPad2d, 3: nn.ZeroPad3d},
    "reflect": {1: nn.ReflectionPad1d, 2: nn.ReflectionPad2d, 3: nn.ReflectionPad3d},
    "replicate": {1: nn.ReplicationPad1d, 2: nn.ReplicationPad2d, 3: nn.ReplicationPad3d},
    "circular": {1: nn.CircularPad1d, 2: nn.CircularPad2d, 3: nn.CircularPad3d},
}


def to_native(model: nn.Module) -> nn.Module:
    """A copy in which each factorized layer that is a chain of convolutions or linear maps is an
    `nn.Sequential` of them.

    Products of factors with factors are worked out once, and can be trained if one of their factors can. A
    layer with several names is one chain under all of them. A layer stays as it is if its steps permute
    channels or fold them into the batch, or if the chain would hold as many elements as the dense weight.
    A transposed convolution that is called with an `output_size` has no such chain: `nn.Sequential` takes
    the input alone. Take `fold` there.

    >>> from tenfold.nn import FactorizedLinear
    >>> to_native(nn.Sequential(FactorizedLinear(512, 256, rank=8)))
    Sequential(
      (0): Sequential(
        (0): Linear(in_features=512, out_features=8, bias=False)
        (1): Linear(in_features=8, out_features=256, bias=True)
      )
    )
    """
    if isinstance(model, FactorizedLayer):
        return native_layer(model) or deepcopy(model)
    copy = deepcopy(model)
    made: dict[int, nn.Sequential | None] = {}
    for name, layer in list(copy.named_modules(remove_duplicate=False)):
        if not isinstance(layer, FactorizedLayer):
            continue
        if id(layer) not in made:
            made[id(layer)] = native_layer(layer)
        if (chain := made[id(layer)]) is not None:
            parent, _, child = name.rpartition(".")
            setattr(copy.get_submodule(parent), child, chain)
    return copy


def native_layer(layer: FactorizedLayer) -> nn.Sequential | None:
    """The chain of one layer; None if there is none."""
    if not is_chain(layer.program):
        return None
    with torch.enable_grad():  # so that views of parameters say whether those can be trained
        factors = resting(layer.weight).factors()
    program, weights = folded(layer.program, factors)
    trained = _trained(layer.program, factors)
    modules: list[nn.Module] = []
    for step in program.steps:
        if isinstance(step, Linear | Conv | Transposed):
            weight = nn.Parameter(weights[step.weight], requires_grad=trained[step.weight])
            modules += _modules(step, weight)
    if sum(p.numel() for m in modules for p in m.parameters()) >= layer.weight.shape.numel():
        return None
    if layer.bias is not None:
        modules[-1].bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=layer.bias.requires_grad)
    return nn.Sequential(*modules).train(layer.training)


def _trained(program: Program, factors: list[Tensor]) -> list[bool]:
    """For each step of the folded program, whether a factor in its weight can be trained."""
    can = [factor.requires_grad for factor in factors]
    trained: list[bool] = []
    for step in program.steps:
        if isinstance(step, Merge):
            can.append(can[step.left] or can[step.right])
        elif isinstance(step, Linear | Conv | Transposed):
            trained.append(can[step.weight])
    return trained


def is_chain(program: Program) -> bool:
    """Whether the activation only meets whole convolutions and linear maps."""

    def plain(step: object) -> bool:
        if isinstance(step, Linear):
            return step.pre * step.post == 1
        return isinstance(step, Merge | Conv | Transposed)

    return program.inputs == 1 and all(plain(step) for step in program.steps)


def _modules(step: Linear | Conv | Transposed, weight: nn.Parameter) -> list[nn.Module]:
    if isinstance(step, Linear):
        return _linear(weight)
    return _conv(step, weight) if isinstance(step, Conv) else _transposed(step, weight)


def _linear(weight: nn.Parameter) -> list[nn.Module]:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = weight
    return [module]


def _conv(step: Conv, weight: nn.Parameter) -> list[nn.Module]:
    order = len(step.stride)
    kind: Any = CONVOLUTIONS[order]
    module: nn.Module = kind(
        step.channels, step.out, tuple(weight.shape[2:]), step.stride, step.padding, step.dilation,
        step.groups, bias=False, device="meta",
    )  # fmt: skip
    module.weight = weight
    pad = [PADS[step.pad_mode][order](step.pad)] if step.pad else []
    return [*pad, module]


def _transposed(step: Transposed, weight: nn.Parameter) -> list[nn.Module]:
    kind: Any = TRANSPOSED[len(step.stride)]
    module: nn.Module = kind(
        step.channels, step.out, tuple(weight.shape[2:]), step.stride, step.padding, step.output_padding,
        step.groups, bias=False, dilation=step.dilation, device="meta",
    )  # fmt: skip
    module.weight = weight
    return [module]
