"""The tensor lasso: gates with an l1 penalty, and the smaller layers that are left when gates are shut."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.core.errors import OptionError, SelectionError
from tenfold.core.network import Axis
from tenfold.formats import Format
from tenfold.nn.bonds.gates import GatedTensor, absorb_gates, gated, put_gates
from tenfold.nn.bonds.shrinking import carried, replace_weights, sliced
from tenfold.nn.tensor.factorized import FactorizedTensor
from tenfold.nn.tensor.shared_factors import SharingTensor


@dataclass(frozen=True)
class TensorLasso:
    """The gates of a module, their penalty, and what becomes of those that are shut: see `tensor_lasso`."""

    module: nn.Module
    penalty: float
    threshold: float

    @property
    def loss(self) -> Float[Tensor, ""]:
        """penalty · Σ |gate| over all gates, each once: to be added to the loss of training.

        Raises:
            SelectionError: if the module has no gates, as after `shrink_`.
        """
        tensors = gated(self.module).values()
        gates = {id(gate): gate for tensor in tensors for gate in tensor.gates.values()}
        zero = next(iter(tensors)).scale.new_zeros(())
        return self.penalty * sum((gate.abs().sum().to(zero.device) for gate in gates.values()), start=zero)

    def ranks(self) -> dict[str, dict[Axis, int]]:
        """Weight -> bond -> how many gates are open: the ranks that `shrink_` leaves, or more than can be
        used."""
        return {
            name: {bond: len(self._open(gate)) for bond, gate in tensor.gates.items()}
            for name, tensor in gated(self.module).items()
        }

    def shrink_(self) -> nn.Module:
        """Remove the ranks whose gates are shut, |gate| <= threshold; returns the smaller module.

        A model is changed in place, with new layers, whose factors have fewer ranks and the gates in them. A
        layer or tensor by itself cannot be: take what is returned. The output changes by what the removed
        ranks carried: not at all where their gates are 0. Of a bond whose gates are all shut, the rank of the
        widest stays. Gates are gone then; build optimizers after this call.

        Raises:
            SelectionError: if the module has no gates.
        """
        with torch.no_grad():
            values = {id(tensor): self._smaller(tensor) for tensor in gated(self.module).values()}
        return replace_weights(self.module, values)

    def remove_(self) -> nn.Module:
        """Take the gates off, in place, multiplied into the factors; all ranks stay. Returns the module."""
        absorb_gates(gated(self.module).values())
        return self.module

    def _smaller(self, tensor: GatedTensor) -> Format:
        """The weight without the ranks that are shut; a slice of a joint tensor keeps the ranks of others."""
        value = sliced(tensor.value, {bond: self._open(gate) for bond, gate in tensor.gates.items()})
        return value if isinstance(tensor, SharingTensor) else carried(value)

    def _open(self, gate: Float[Tensor, " rank"]) -> Int[Tensor, " open"]:
        """Which gates are open, the widest in any case."""
        size = gate.detach().abs()
        return (size > self.threshold).index_fill(0, size.argmax(), True).nonzero().squeeze(1)


def tensor_lasso(module: nn.Module, penalty: float = 0.01, threshold: float = 1e-2) -> TensorLasso:
    """Put gates on all ranks of factorized weights, in place, to be trained with an l1 penalty.

    `module` is a FactorizedTensor, a layer, or a whole model. Gates begin at 1, so it computes what it did.
    They are parameters, so build the optimizer after this call, add `lasso.loss` to the loss, and when
    training is over call `lasso.shrink_()`, which removes the ranks whose gates have come to `threshold` or
    below. Optimizers let gates swing about 0 by about a learning rate: choose the threshold above it.

    Train with weight decay: factors escape from the penalty by growing while gates shrink, unless it holds
    them. A penalty that no rescaling changes, gates that end at exact zeros, and budgets over all layers are
    in `tenfold.compress`: `gate_penalty`, `proximal` and `absorb_gates_`, which take the same gates.

    Source: the tensor lasso of TensorLy-Torch (Kossaifi et al.); the lasso: Tibshirani 1996.

    Raises:
        OptionError: unless penalty and threshold are finite and not negative.
        SelectionError: if there is no factorized weight.

    >>> from tenfold.nn import FactorizedLinear
    >>> model = nn.Sequential(FactorizedLinear(20, 10, rank=5), nn.ReLU())
    >>> lasso = tensor_lasso(model, penalty=0.1)
    >>> lasso.loss
    tensor(0.5000, grad_fn=<MulBackward0>)
    >>> model[0].weight.gates["R"].data[1:4] = 0
    >>> lasso.ranks(), lasso.shrink_()[0].weight.ranks
    ({'0.weight': {'R': 2}}, {'R': 2})
    """
    for name, number in (("penalty", penalty), ("threshold", threshold)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise OptionError(f"{name} came as {number!r}.", "Give a finite number from 0.")
    found = [m for m in module.modules() if isinstance(m, FactorizedTensor)]
    if not found:
        raise SelectionError(f"{type(module).__name__} has no factorized weight.", "Factorize it first.")
    put_gates(found)
    return TensorLasso(module, penalty, threshold)
