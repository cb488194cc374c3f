"""The tensor lasso: gates on all ranks of a factorized model, shut by training."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.core.network import Axis
from tenfold.nn import FactorizedLayer
from tenfold.nn.bonds.gates import gated, put_gates
from tenfold.nn.tensor.shared_factors import SharingTensor

Optimizer = Callable[..., torch.optim.Optimizer]


def insert_gates_(model: nn.Module) -> tuple[str, ...]:
    """Put gates of 1 on all ranks of the factorized weights, in place; returns the names of these weights.

    The model computes what it did, and its factors remain the same parameters; but an optimizer has to know
    the gates, so build it after this call. Weights that have gates keep them; gates of frozen weights are
    frozen. To shut gates, train with
    `tune(model, train, optimizer=proximal(model, strength), ...)`: it ends at zeros. Do not give `valid`: the
    weights of the lowest loss, which it brings back, are most often those with all gates open. In a loop of
    your own, call `shrink_` after every step, or add `gate_penalty`. Then `absorb_gates_` makes the model
    smaller; do that before saving it.

    Raises:
        SelectionError: if there is no factorized layer.
        UnsupportedError: if layers share factors of one joint tensor.

    >>> from tenfold.nn import FactorizedLinear
    >>> model = nn.Sequential(FactorizedLinear(20, 10, rank=4))
    >>> insert_gates_(model)
    ('0.weight',)
    >>> model[0].weight.gates["R"].shape
    torch.Size([4])
    """
    weights = [m.weight for m in model.modules() if isinstance(m, FactorizedLayer)]
    if any(isinstance(weight, SharingTensor) for weight in weights):
        raise UnsupportedError(
            "the model has layers of a joint factorization, whose ranks cannot be chosen one by one.",
            "Use `tenfold.nn.tensor_lasso(model)`, which shuts gates for all of them at once.",
        )
    put_gates(weights)
    return tuple(gated(model))


def gate_widths(model: nn.Module) -> dict[str, dict[Axis, list[float]]]:
    """Weight -> bond -> what passes through each rank, as the rule `Lasso` takes it.

    >>> from tenfold.nn import FactorizedLinear
    >>> model = nn.Sequential(FactorizedLinear(20, 10, rank=4))
    >>> _ = insert_gates_(model)
    >>> len(gate_widths(model)["0.weight"]["R"])
    4
    """
    with torch.no_grad():
        return {
            name: {b: width.tolist() for b, width in weight.widths().items()}
            for name, weight in gated(model).items()
        }


def gate_penalty(model: nn.Module) -> Tensor:
    """The mean over all gates of what passes through them: times a strength, a term of the training loss.

    The source takes the mean |λ| of the gates, from which factors escape by growing while gates shrink. Here
    a gate counts as `GatedTensor.width` says, which no rescaling changes: for low rank and CP the sum is
    Σ_r |λ_r| Π_k ‖a_k,r‖, and its least value over all decompositions is the nuclear norm. Optimizers let
    gates swing about 0 without end; where zeros are wanted, use `proximal` instead, not both.

    >>> from tenfold.nn import FactorizedLinear
    >>> model = nn.Sequential(FactorizedLinear(20, 10, rank=1))
    >>> _ = insert_gates_(model)
    >>> gate_penalty(model)  # one rank, through which the whole weight passes
    tensor(1., grad_fn=<MeanBackward0>)
    """
    widths = [width for weight in gated(model).values() for width in weight.widths().values()]
    device = widths[0].device
    return torch.cat([width.to(device) for width in widths]).mean()


def shrink_(model: nn.Module, amount: float) -> None:
    """Soft thresholding, in place: what passes through each gate is made less by `amount`, or shut off.

    λ ← λ · max(0, 1 − amount / width), the proximal step of amount · Σ width, one bond after the other. A
    bond whose gates would all be shut keeps the widest as it is: a weight does not vanish. Frozen gates stay.

    Raises:
        OptionError: unless `amount` is finite and not negative.

    >>> from tenfold.nn import FactorizedLinear
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(FactorizedLinear(20, 10, rank=4))
    >>> _ = insert_gates_(model)
    >>> before = gate_widths(model)["0.weight"]["R"]
    >>> shrink_(model, 0.2)
    >>> [round(old - new, 2) for old, new in zip(before, gate_widths(model)["0.weight"]["R"])]
    [0.2, 0.2, 0.2, 0.2]
    """
    _check(amount, "an amount")
    with torch.no_grad():
        for weight in gated(model).values():
            for bond, gate in weight.gates.items():
                if gate.requires_grad:
                    gate.mul_(_left(weight.width(bond), amount).to(gate.dtype))


def _left(width: Tensor, amount: float) -> Tensor:
    """The fraction of each width that soft thresholding leaves."""
    if not (width > amount).any():
        return torch.zeros_like(width).index_fill(0, width.argmax(), 1.0)
    return torch.where(width > amount, 1 - amount / width, 0.0)


def proximal(model: nn.Module, strength: float, optimizer: Optimizer = torch.optim.Adam) -> Optimizer:
    """What to give `tune` as `optimizer`: one that shrinks the gates of `model` after each step, by
    strength · lr.

    A rank that carries the fraction s of its weight and that the loss does not defend is shut after
    s / (strength · lr) steps.

    Raises:
        OptionError: unless `strength` is finite and not negative.
        SelectionError: if the model has no gates.

    >>> from tenfold.nn import FactorizedLinear
    >>> model = nn.Sequential(FactorizedLinear(20, 10, rank=4))
    >>> _ = insert_gates_(model)
    >>> type(proximal(model, 0.1, torch.optim.SGD)(model.parameters(), lr=0.1)).__name__
    'SGD'
    """
    _check(strength, "a strength")
    gated(model)

    def made(parameters: Any, *, lr: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        stepper = optimizer(parameters, lr=lr, weight_decay=weight_decay)
        stepper.register_step_post_hook(
            lambda stepped, *_: shrink_(model, strength * stepped.param_groups[0]["lr"])
        )
        return stepper

    return made


def _check(value: float, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise OptionError(f"{name} of {value!r} came.", "Give a finite number from 0.")
