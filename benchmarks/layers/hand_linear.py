"""Linear layers written by hand from the factors of a factorized one."""

import torch.nn.functional as F
from hand import Chains, khatri_rao, linear, own, owned, row_wise, stacked
from torch import Tensor, nn

from tenfold.nn import FactorizedLinear


def lowrank(layer: FactorizedLinear) -> Chains:
    """Two linear maps."""
    value = layer.weight.value
    return {"two linear maps": nn.Sequential(linear(value.right), linear(value.left, layer.bias))}


def cp(layer: FactorizedLinear) -> Chains:
    """CP of a weight whose outputs and inputs are each split in two."""
    return {"factors first": MergedCP(layer), "input first": SweptCP(layer)}


def tucker(layer: FactorizedLinear) -> Chains:
    """Tucker of a weight whose outputs and inputs are each split in two."""
    return {
        "input first": SweptTucker(layer),
        "inputs' factors first": HalfTucker(layer),
        "factors first": MergedTucker(layer),
    }


def tt(layer: FactorizedLinear) -> Chains:
    """TT-matrix of two cores."""
    return {
        "first core first": FirstCoreFirst(layer),
        "last core first": LastCoreFirst(layer),
        "reconstructed": ReconstructedTT(layer),
    }


class FourFactors(nn.Module):
    """The matrices of a weight (o0 o1) (i0 i1), for outputs as (size, rank), for inputs as (rank, size)."""

    def __init__(self, layer: FactorizedLinear) -> None:
        super().__init__()
        outputs, inputs = layer.weight.value.matrices[:2], layer.weight.value.matrices[2:]
        self.outputs, self.inputs = owned(outputs), owned(f.T for f in inputs)
        self.bias = own(layer.bias)


class MergedCP(FourFactors):
    """Khatri-Rao products on either side, then two linear maps."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, row_wise(*self.inputs)), khatri_rao(*self.outputs), self.bias)


class SweptCP(FourFactors):
    """The input meets one factor after the other."""

    def forward(self, x: Tensor) -> Tensor:
        (o0, o1), (i0, i1) = self.outputs, self.inputs
        z = F.linear(x.view(-1, i0.shape[1], i1.shape[1]), i1)
        z = (z * i0.T).sum(1)
        return ((z.unsqueeze(1) * o0) @ o1.T).flatten(1) + self.bias


class FourFactorsAndCore(FourFactors):
    """The same with the core as a matrix, (outputs' ranks, inputs' ranks)."""

    def __init__(self, layer: FactorizedLinear) -> None:
        super().__init__(layer)
        self.core = own(layer.weight.value.core.flatten(0, 1).flatten(1))


class SweptTucker(FourFactorsAndCore):
    """The input meets one factor after the other, and the core in between."""

    def forward(self, x: Tensor) -> Tensor:
        i0, i1 = self.inputs
        z = stacked(i0, F.linear(x.view(-1, i0.shape[1], i1.shape[1]), i1))
        return self.finish(F.linear(z.flatten(1), self.core))

    def finish(self, z: Tensor) -> Tensor:
        """From the ranks to the outputs."""
        o0, o1 = self.outputs
        return F.linear(stacked(o0, z.view(-1, o0.shape[1], o1.shape[1])), o1).flatten(1) + self.bias


class HalfTucker(SweptTucker):
    """The core meets the factors of the inputs, then the input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(F.linear(x, self.merged()))

    def merged(self) -> Tensor:
        """(outputs' ranks, inputs)."""
        i0, i1 = self.inputs
        return (i0.T @ (self.core.view(-1, i0.shape[0], i1.shape[0]) @ i1)).flatten(1)


class MergedTucker(HalfTucker):
    """Factors of both sides meet before the input."""

    def forward(self, x: Tensor) -> Tensor:
        o0, o1 = self.outputs
        left = (o0[:, None, :, None] * o1[None, :, None, :]).flatten(2).flatten(0, 1)
        return F.linear(F.linear(x, self.merged()), left, self.bias)


class TwoCores(nn.Module):
    """The cores (o0, i0, r) and (r, o1, i1)."""

    def __init__(self, layer: FactorizedLinear) -> None:
        super().__init__()
        sizes = dict(layer.layout.sizes)
        self.o0, self.i0, self.o1, self.i1 = (sizes[a] for a in ("o0", "i0", "o1", "i1"))
        first, last = layer.weight.value.cores
        self.first = first.detach().reshape(self.o0, self.i0, -1)
        self.last = last.detach().reshape(-1, self.o1, self.i1)
        self.keep()
        self.bias = own(layer.bias)

    def keep(self) -> None:
        """Make the cores parameters, in the order in which they are used."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs), without the bias."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x) + self.bias


class FirstCoreFirst(TwoCores):
    """(o0 r, i0) from the left, then (o1, r i1) from the right: no axis is moved."""

    def keep(self) -> None:
        self.first = own(self.first.transpose(1, 2).flatten(0, 1))
        self.last = own(self.last.transpose(0, 1).flatten(1))

    def product(self, x: Tensor) -> Tensor:
        z = stacked(self.first, x.view(-1, self.i0, self.i1))
        return F.linear(z.view(len(x), self.o0, -1), self.last).flatten(1)


class LastCoreFirst(TwoCores):
    """(r o1, i1) from the right, then (o0, i0 r) from the left: no axis is moved."""

    def keep(self) -> None:
        self.first = own(self.first.flatten(1))
        self.last = own(self.last.flatten(0, 1))

    def product(self, x: Tensor) -> Tensor:
        z = F.linear(x.view(-1, self.i0, self.i1), self.last)
        return stacked(self.first, z.view(len(x), -1, self.o1)).flatten(1)


class ReconstructedTT(TwoCores):
    """The weight is made and used."""

    def keep(self) -> None:
        self.first = own(self.first.flatten(0, 1))
        self.last = own(self.last.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.first @ self.last).view(self.o0, self.i0, self.o1, self.i1).transpose(1, 2)
        return F.linear(x, weight.reshape(self.o0 * self.o1, -1), self.bias)
