"""Weights with fewer ranks, and the layers that take them in the place of the old ones."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tenfold.core.errors import UnsupportedError
from tenfold.core.network import Axis, Network
from tenfold.formats import Format
from tenfold.nn.base import FactorizedLayer
from tenfold.nn.bonds.dropout import DroppedTensor, tensor_dropout
from tenfold.nn.bonds.numbers import BondTensor
from tenfold.nn.tensor.complex_pairs import ComplexPairs, PairedBias, in_pairs_
from tenfold.nn.tensor.factorized import FactorizedTensor
from tenfold.nn.tensor.pivoted import PivotedTensor
from tenfold.nn.tensor.shared_factors import SharedFactors, SharingTensor

Weights = Mapping[int, Format | None]
"""By the id of a FactorizedTensor what is to be in its place; None: the dense weight."""


def sliced(value: Format, chosen: Mapping[Axis, Int[Tensor, " kept"]]) -> Format:
    """The format over some of the ranks of each bond, by number.

    >>> from tenfold.formats import CP
    >>> x = CP.random((4, 3, 2), 5, like=torch.zeros(()), generator=0)
    >>> y = sliced(x, {"R": torch.tensor([0, 3])})
    >>> y.ranks, torch.equal(y.matrices[0], x.matrices[0][:, [0, 3]])
    ({'R': 2}, True)
    """
    arrays = []
    for axes, factor in zip(value.network.factors, value.factors, strict=True):
        for k, a in enumerate(axes):
            factor = factor.index_select(k, chosen[a]) if a in chosen else factor
        arrays.append(factor)
    return _over(value, arrays)


def carried(value: Format) -> Format:
    """The same tensor with no bond larger than it can carry, as formats of other ranks are not made.

    Where the size n of a bond exceeds k, the product of a factor's other axes, the factor is F = Q R with Q
    (n, k): R takes its place, and Q goes into the neighbour on the bond.

    >>> from tenfold.formats import Tucker
    >>> x = Tucker.random((8, 6, 5), (2, 2, 4), like=torch.zeros(()), generator=0)
    >>> wide = x.with_factors([torch.ones(4, 2, 1), torch.ones(8, 4), x.matrices[1], torch.ones(5, 1)])
    >>> carried(wide).ranks, torch.allclose(carried(wide).dense(), wide.dense())
    ({'R0': 2, 'R1': 2, 'R2': 1}, True)
    """
    while (found := _overfull(value.network)) is not None:
        bond, at, other = found
        axes = value.network.factors
        arrays = list(value.factors)
        front = arrays[at].movedim(axes[at].index(bond), 0)
        q, r = torch.linalg.qr(front.flatten(1).to(torch.promote_types(front.dtype, torch.float32)))
        narrow = r.to(front.dtype).reshape(-1, *front.shape[1:])
        arrays[at] = narrow.movedim(0, axes[at].index(bond))
        k = axes[other].index(bond)
        arrays[other] = torch.tensordot(arrays[other], q.to(front.dtype), dims=([k], [0])).movedim(-1, k)
        value = _over(value, arrays)
    return value


def _overfull(network: Network) -> tuple[Axis, int, int] | None:
    """A bond of two factors that is larger than the rest of one of them, that one, and the other."""
    for bond in network.bonds:
        holders = [k for k, f in enumerate(network.factors) if bond in f]
        for at in holders:
            rest = network.product(network.factors[at]) // network.size_of[bond]
            if len(holders) == 2 and rest < network.size_of[bond]:
                return bond, at, next(k for k in holders if k != at)
    return None


def _over(value: Format, arrays: Sequence[Tensor]) -> Format:
    feed = iter(arrays)
    return value.with_factors([None if slot is None else next(feed) for slot in value.slots])


def replace_weights(model: nn.Module, weights: Weights) -> nn.Module:
    """The model with new layers for all that hold these weights, under all their names.

    The model is changed in place, unless it is such a layer or weight itself: then its successor is
    returned. Weights that were shared stay shared, slices of a joint tensor stay slices of one, pairs of
    reals stay pairs, and dropout on bonds stays; gates do not. Hooks on the replaced layers are lost.

    Raises:
        UnsupportedError: before anything is changed, for a weight with a program outside of such a layer.
    """
    places = list(_places(model, weights))
    successors = _Successors(weights)
    root = model
    for path, old in places:
        new = successors.layer(old) if isinstance(old, FactorizedLayer) else successors.tensor(old)
        parent, _, child = path.rpartition(".")
        if path:
            setattr(model.get_submodule(parent), child, new)
        else:
            root = new
    return root


def _places(model: nn.Module, weights: Weights) -> Iterator[tuple[str, FactorizedLayer | FactorizedTensor]]:
    """Layers that hold such a weight, and such weights that no layer holds, with all their names."""
    held = {id(m.weight) for m in model.modules() if isinstance(m, FactorizedLayer)}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, FactorizedLayer) and id(module.weight) in weights:
            yield path, module
        elif isinstance(module, FactorizedTensor) and id(module) in weights and id(module) not in held:
            if module.program is not None or weights[id(module)] is None:
                raise UnsupportedError(
                    f"'{path}' is a planned weight outside of a factorized layer.",
                    "Hold it in a FactorizedLayer, which can plan anew for other ranks.",
                )
            yield path, module


def _plain(weight: FactorizedTensor) -> FactorizedTensor:
    return weight.plain if isinstance(weight, BondTensor) else weight


class _Successors:
    """The new layers and weights, each made once."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.layers: dict[int, nn.Module] = {}
        self.tensors: dict[int, nn.Module] = {}
        self.families: dict[int, SharedFactors] = {}

    def layer(self, old: FactorizedLayer) -> nn.Module:
        if id(old) not in self.layers:
            self.layers[id(old)] = self._layer(old, self.weights[id(old.weight)])
        return self.layers[id(old)]

    def _layer(self, old: FactorizedLayer, value: Format | None) -> nn.Module:
        if value is None:
            dense = old.to_dense()
            dense.weight = self.tensors.setdefault(id(old.weight), dense.weight)  # type: ignore[arg-type]
            return dense
        kind = old.kind if isinstance(old, PairedBias) else type(old)
        new = kind.from_dense(old, value, old.layout, old.planned())
        if isinstance(_plain(old.weight), ComplexPairs):
            in_pairs_(new)
        if id(old.weight) not in self.tensors:
            self.tensors[id(old.weight)] = self._alike(new.weight, old.weight)
        new.weight = self.tensors[id(old.weight)]  # type: ignore[assignment]
        return new

    def tensor(self, old: FactorizedTensor) -> nn.Module:
        if id(old) not in self.tensors:
            value = self.weights[id(old)]
            assert value is not None
            self.tensors[id(old)] = self._alike(type(_plain(old))(value, old.layout), old)
        return self.tensors[id(old)]

    def _alike(self, new: FactorizedTensor, old: FactorizedTensor) -> FactorizedTensor:
        """The new weight with flags, joint factors and dropout as the old one."""
        plain = _plain(old)
        new.requires_grad_(plain.requires_grad).train(old.training)
        if isinstance(plain, PivotedTensor):
            new = PivotedTensor.of(new)
        if isinstance(plain, SharingTensor):
            new = SharingTensor.over(new, self._family(new, plain.shared))
        if isinstance(old, DroppedTensor):
            tensor_dropout(new, *old.settings)
        return new

    def _family(self, new: FactorizedTensor, shared: SharedFactors) -> SharedFactors:
        if id(shared) not in self.families:
            factors = {name: new.get_parameter(name) for name in shared._parameters}
            self.families[id(shared)] = SharedFactors(shared.kind, factors)
        return self.families[id(shared)]
