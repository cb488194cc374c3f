"""A weight held as factors with a number on every rank of every bond: the gates of the tensor lasso."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.arrays import namespace
from tenfold.core.contraction import lower_contraction
from tenfold.core.errors import SelectionError
from tenfold.core.network import Axis, Network
from tenfold.core.program import run
from tenfold.formats import Format
from tenfold.nn.bonds.numbers import BondTensor, put_on, take_off
from tenfold.nn.tensor.factorized import FactorizedTensor
from tenfold.nn.tensor.shared_factors import SharingTensor


class GatedTensor(BondTensor):
    """A tensor with a trained number, its gate, on each rank of each bond; `put_gates` puts them on.

    A gate multiplies all that passes through its rank: a number for a component of CP, a vector for each mode
    of Tucker and each bond of a train. Where it is 0, the rank carries nothing. Gates may be negative. They
    are part of the weight, so `value` and `dense()` have them in. `scale` is the norm of the weight when the
    gates came in, the unit of `widths`. `numel` counts the factors alone.

    `GatedTensor(plain)` is a second tensor over the parameters of `plain`, which stays as it is.

    Source: the tensor lasso of TensorLy-Torch (Kossaifi et al.).

    >>> x = GatedTensor(FactorizedTensor.new((8, 6, 5), 3, "cp"))
    >>> x.gates["R"].data[1] = 0
    >>> x.widths()["R"].detach()[1], x.numel()
    (tensor(0.), 57)
    """

    order = 0
    gates: nn.ParameterDict
    scale: Tensor

    def __init__(self, plain: FactorizedTensor) -> None:
        vars(self).update({k: v.copy() if isinstance(v, dict | set) else v for k, v in vars(plain).items()})
        self.__class__ = type(plain)  # type: ignore[assignment]
        put_gates([self])

    def factors(self) -> list[Tensor]:
        """The factors as they are stored, each gate multiplied into the smallest one on its bond."""
        return self.passed(super().factors(), dict(self.gates.items()))

    def set_(self, value: Format) -> None:
        """Put new factors of the same shapes in, and open all gates."""
        super().set_(value)
        with torch.no_grad():
            for gate in self.gates.values():
                gate.fill_(1)

    def widths(self) -> dict[Axis, Float[Tensor, " rank"]]:
        """Bond -> `width` of its gates."""
        return {b: self.width(b) for b in self.gates}

    def width(self, bond: Axis) -> Float[Tensor, " rank"]:
        """The norm of what passes through each rank of a bond, as a fraction of `scale`; differentiable.

        That is |gate| times the norm of the tensor that the factors make through this rank alone, with the
        other bonds' gates. It does not change when the gate shrinks and factors grow. In float32 at least.
        """
        factors = self.plain.value.map(lambda f: f.to(torch.promote_types(f.dtype, torch.float32)))
        gates = {b: gate.to(factors.dtype) for b, gate in self.gates.items()}
        through = passing(factors, bond, {b: gate for b, gate in gates.items() if b != bond})
        scale = torch.where(self.scale > 0, self.scale, torch.ones_like(self.scale))
        return gates[bond].abs() * through / scale.to(through.dtype)


def put_gates(tensors: Iterable[FactorizedTensor]) -> None:
    """Put gates of 1 on all bonds of the tensors, in place; those that have gates keep them.

    Gates of frozen weights are frozen. Tensors of a joint factorization have the same gates: there is one for
    each rank of the tensor that they make up.
    """
    joint: dict[int, nn.ParameterDict] = {}
    for tensor in tensors:
        family = id(tensor.shared) if isinstance(tensor, SharingTensor) else id(tensor)
        if isinstance(tensor, GatedTensor):
            joint[family] = tensor.gates
            continue
        value, trained = tensor.value, tensor.requires_grad
        tensor.gates = joint.setdefault(family, _open(value, trained))
        tensor.register_buffer("scale", value.norm().detach())
        put_on(GatedTensor, tensor)


def _open(value: Format, trained: bool) -> nn.ParameterDict:
    """Gates of 1, real numbers."""
    like = value.factors[0].detach()
    like = like.real if like.is_complex() else like
    ones = {b: torch.ones(n, dtype=like.dtype, device=like.device) for b, n in value.ranks.items()}
    return nn.ParameterDict({b: nn.Parameter(x, trained) for b, x in ones.items()})


def gated(model: nn.Module) -> dict[str, GatedTensor]:
    """The weights with gates by name, each once; raises SelectionError if there are none."""
    found = {name: m for name, m in model.named_modules() if isinstance(m, GatedTensor)}
    if not found:
        raise SelectionError(
            "the model has no factorized layer with gates.",
            "Put gates on with `tensor_lasso`, or `insert_gates_` for a whole model.",
        )
    return found


def absorb_gates(tensors: Iterable[GatedTensor]) -> None:
    """Multiply the gates into the factors and take them off, in place; the weights stay what they are."""
    found = list(tensors)
    values = [x.value.map(lambda f: f.detach().clone()) for x in found]
    for tensor, value in zip(found, values, strict=True):
        take_off(GatedTensor, tensor)
        del tensor.gates, tensor.scale
        tensor.set_(value)


def passing(value: Format, bond: Axis, gates: dict[Axis, Float[Tensor, " rank"]]) -> Float[Tensor, " rank"]:
    """For each rank of a bond the norm of the tensor that it makes alone, with gates on other bonds.

    One contraction: the inner product of the network with itself, in which both copies share the bond.

    >>> from tenfold.formats import LowRank
    >>> x = LowRank(torch.tensor([[3.0, 0.0], [4.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> passing(x, "R", {})
    tensor([5., 2.])
    """
    network = value.network
    half = (*network.factors, *((b,) for b in gates))
    names = {b: f"{b}'" for b in network.bonds if b != bond}
    twin = tuple(tuple(names.get(a, a) for a in f) for f in half)
    sizes = dict(network.sizes) | {new: network.size_of[b] for b, new in names.items()}
    arrays = (*value.factors, *gates.values())
    both = Network((*half, *twin), (), tuple(sizes.items()))
    conjugates = tuple(a.conj() for a in arrays)
    squares: Tensor = run(lower_contraction(both, (bond,)), (*arrays, *conjugates), namespace(*arrays))
    return _root(squares.real if squares.is_complex() else squares)


def _root(squares: Tensor) -> Tensor:
    """Square roots whose slope at 0 is 0, not infinite; rounding may have made a 0 negative."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, torch.ones_like(squares)).sqrt(), 0.0)
