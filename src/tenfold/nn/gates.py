"""A weight held as factors with a number on every rank of every bond: the gates of the tensor lasso."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.arrays import namespace
from tenfold.core.contraction import lower_contraction
from tenfold.core.network import Axis, Network
from tenfold.core.program import run
from tenfold.formats import Format
from tenfold.nn.tensor import FactorizedTensor


class GatedTensor(FactorizedTensor):
    """The factors of `plain`, which is kept as it is, with gates of 1 on all bonds.

    A gate multiplies all that passes through its rank: a number for a component of CP, a vector for each mode
    of Tucker and each bond of a train. Where it is 0, the rank carries nothing. `scale` is the norm of the
    weight when the gates came in, the unit of `widths`. `numel` counts the factors alone.

    Source: the tensor lasso of TensorLy-Torch (Kossaifi et al.).

    >>> x = GatedTensor(FactorizedTensor.new((8, 6, 5), 3, "cp"))
    >>> x.gates["R"].data[1] = 0
    >>> x.widths()["R"].detach()[1], x.numel()
    (tensor(0.), 57)
    """

    scale: Tensor

    def __init__(self, plain: FactorizedTensor) -> None:
        nn.Module.__init__(self)
        self.format, self.layout, self.program = plain.format, plain.layout, plain.program
        self.network, self.shapes, self.missing = plain.network, plain.shapes, plain.missing
        self.names, self.stored, self.static = plain.names, plain.stored, plain.static
        self.plain = plain
        like = plain.factors()[0]
        ones = {b: torch.ones(n, dtype=like.dtype, device=like.device) for b, n in plain.ranks.items()}
        self.gates = nn.ParameterDict({b: nn.Parameter(x, plain.requires_grad) for b, x in ones.items()})
        self.carriers = {b: _smallest_holder(self.network, b) for b in ones}
        self.register_buffer("scale", plain.value.norm().detach())

    def factors(self) -> list[Tensor]:
        """The factors as they are stored, each gate multiplied into the smallest one on its bond."""
        stored = self.plain.factors()
        for b, gate in self.gates.items():
            k = self.carriers[b]
            stored[k] = self._through(stored[k], k, b, gate)
        return stored

    def _through(self, factor: Tensor, k: int, bond: Axis, gate: Tensor) -> Tensor:
        """Factor k times a gate along one of its axes, in the order and shape in which it is stored."""
        axes = self.stored[k].axes
        split = factor.reshape(self.network.extent(axes))
        return (split * gate.view([-1 if a == bond else 1 for a in axes])).reshape(factor.shape)

    def set_(self, value: Format) -> None:
        """Put new factors of the same shapes in, and open all gates."""
        self.plain.set_(value)
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
        return gates[bond].abs() * through / scale.to(factors.dtype)


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
    squares: Tensor = run(lower_contraction(both, (bond,)), (*arrays, *arrays), namespace(*arrays))
    return _root(squares)


def _root(squares: Tensor) -> Tensor:
    """Square roots whose slope at 0 is 0, not infinite; rounding may have made a 0 negative."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, torch.ones_like(squares)).sqrt(), 0.0)


def _smallest_holder(network: Network, bond: Axis) -> int:
    holders = [k for k, f in enumerate(network.factors) if bond in f]
    return min(holders, key=lambda k: network.product(network.factors[k]))
