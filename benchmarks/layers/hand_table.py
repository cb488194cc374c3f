"""Embeddings written by hand from the factors of a factorized one."""

from collections.abc import Callable

import torch.nn.functional as F
from hand import Chains, khatri_rao, linear, own, owned, stacked
from torch import Tensor, nn

from tenfold.nn import FactorizedEmbedding

LOOKUPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "index_select": lambda table, indices: table.index_select(0, indices),
    "F.embedding": lambda table, indices: F.embedding(indices, table),
}
"""How rows are taken: the first is faster backward, the other may be forward."""


def lowrank(layer: FactorizedEmbedding) -> Chains:
    """Rows of the left factor, then a linear map."""
    return {how: LowRank(layer, how) for how in LOOKUPS}


def cp(layer: FactorizedEmbedding) -> Chains:
    """Rows of the factors of the vocabulary, multiplied; then one linear map."""
    return {how: CP(layer, how) for how in LOOKUPS}


def tucker(layer: FactorizedEmbedding) -> Chains:
    """Outer products of rows, then the core; or one mode of the core after the other."""
    return {f"{how}, {name}": kind(layer, how) for how in LOOKUPS for name, kind in TUCKERS.items()}


def tt(layer: FactorizedEmbedding) -> Chains:
    """Slices of the cores, multiplied in turn; or slices of the product of two cores, and of the third."""
    return {f"{how}, {name}": kind(layer, how) for how in LOOKUPS for name, kind in TRAINS.items()}


class Table(nn.Module):
    """What is common: how rows are taken, and the digits of an index."""

    def __init__(self, layer: FactorizedEmbedding, how: str) -> None:
        super().__init__()
        self.rows = LOOKUPS[how]
        self.sizes = tuple(n for a, n in layer.layout.sizes if a.startswith("v"))
        self.widths = tuple(n for a, n in layer.layout.sizes if a.startswith("o"))

    def digits(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The digits of the indices, the most significant first."""
        _, n1, n2 = self.sizes
        return x // (n1 * n2), x // n2 % n1, x % n2


class LowRank(Table):
    """Rows of the left factor, then a linear map."""

    def __init__(self, layer: FactorizedEmbedding, how: str) -> None:
        super().__init__(layer, how)
        self.left, self.right = own(layer.weight.value.left), linear(layer.weight.value.right.T)

    def forward(self, x: Tensor) -> Tensor:
        return self.right(self.rows(self.left, x))


class CP(Table):
    """Three rows, multiplied, and the Khatri-Rao product of the other factors."""

    def __init__(self, layer: FactorizedEmbedding, how: str) -> None:
        super().__init__(layer, how)
        matrices = layer.weight.value.matrices
        self.tables, self.outputs = owned(matrices[:3]), owned(matrices[3:])

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = (self.rows(t, d) for t, d in zip(self.tables, self.digits(x), strict=True))
        return F.linear(a * b * c, khatri_rao(*self.outputs))


class Tucker(Table):
    """The core as (ranks of the vocabulary, ranks of the outputs)."""

    def __init__(self, layer: FactorizedEmbedding, how: str) -> None:
        super().__init__(layer, how)
        core, matrices = layer.weight.value.core, layer.weight.value.matrices
        self.ranks = core.shape
        self.core = own(core.flatten(3).flatten(0, 2))
        self.tables, self.outputs = owned(matrices[:3]), owned(matrices[3:])

    def taken(self, x: Tensor) -> list[Tensor]:
        """Rows of each factor of the vocabulary."""
        return [self.rows(t, d) for t, d in zip(self.tables, self.digits(x), strict=True)]

    def grown(self, z: Tensor) -> Tensor:
        """(n, ranks of the outputs) -> (n, outputs)."""
        o0, o1, o2 = self.outputs
        p, q, r = self.ranks[3:]
        z = F.linear(z.view(-1, p, q, r), o2)
        z = stacked(o1, z.flatten(0, 1)).view(len(z), p, -1)
        return stacked(o0, z).flatten(1)

    def widened(self) -> Tensor:
        """The core with its factors of the outputs: (ranks of the vocabulary, outputs)."""
        return self.grown(self.core)


class OuterTucker(Tucker):
    """Outer product of the three rows, then the core, then the factors of the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.grown(self.outer(x) @ self.core)

    def outer(self, x: Tensor) -> Tensor:
        """(n, ranks of the vocabulary)."""
        a, b, c = self.taken(x)
        ab = (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)
        return (ab.unsqueeze(2) * c.unsqueeze(1)).flatten(1)


class WidenedTucker(OuterTucker):
    """Outer product of the three rows, then the core that has met the factors of the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(x) @ self.widened()


class SweptTucker(Tucker):
    """One mode of the core after the other is contracted with the rows of its factor."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.taken(x)
        _, q, r = self.ranks[:3]
        z = a @ self.core.view(self.ranks[0], -1)
        z = (b.unsqueeze(1) @ z.view(len(x), q, -1)).squeeze(1)
        return self.grown((c.unsqueeze(1) @ z.view(len(x), r, -1)).squeeze(1))


TUCKERS: dict[str, type[Tucker]] = {
    "core": OuterTucker,
    "widened core": WidenedTucker,
    "core mode by mode": SweptTucker,
}


class TT(Table):
    """The cores as (v0, o0 r), (v1, r o1 s) and (v2, s o2)."""

    def __init__(self, layer: FactorizedEmbedding, how: str) -> None:
        super().__init__(layer, how)
        first, middle, last = layer.weight.value.cores
        (v0, v1, v2), (_, o1, o2) = self.sizes, self.widths
        self.ranks = middle.shape[0], middle.shape[-1]
        self.first = own(first.reshape(v0, -1))
        self.middle = own(middle.reshape(-1, v1, o1, self.ranks[1]).transpose(0, 1).flatten(1))
        self.last = own(last.reshape(-1, v2, o2).transpose(0, 1).flatten(1))


class SweptTT(TT):
    """Slices of the three cores are multiplied for every index."""

    def forward(self, x: Tensor) -> Tensor:
        n, (r, s) = len(x), self.ranks
        i, j, k = self.digits(x)
        a = self.rows(self.first, i).view(n, -1, r) @ self.rows(self.middle, j).view(n, r, -1)
        return (a.view(n, -1, s) @ self.rows(self.last, k).view(n, s, -1)).view(n, -1)


class PairedTT(TT):
    """The first two cores are multiplied for all of their digits."""

    def forward(self, x: Tensor) -> Tensor:
        n, (r, s) = len(x), self.ranks
        v0, v1, v2 = self.sizes
        pair = self.first.view(1, -1, r) @ self.middle.view(v1, r, -1)
        a = self.rows(pair.view(v1 * v0, -1), x // v2 % v1 * v0 + x // (v1 * v2))
        return (a.view(n, -1, s) @ self.rows(self.last, x % v2).view(n, s, -1)).view(n, -1)


TRAINS: dict[str, type[TT]] = {"core by core": SweptTT, "two cores first": PairedTT}
