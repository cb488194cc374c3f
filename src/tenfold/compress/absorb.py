"""Ranks whose gates are shut are dropped; the other gates go into the factors."""

from collections.abc import Mapping

import torch
from torch import nn

from tenfold.compress.cost import flops_of
from tenfold.compress.gates import gate_widths, gated
from tenfold.compress.latency import LatencyTable, latency_of
from tenfold.core.errors import UnsupportedError
from tenfold.core.network import Axis, Network
from tenfold.formats import Format
from tenfold.formats.graphs import identity
from tenfold.nn import FactorizedLayer, FactorizedTensor
from tenfold.nn.gates import GatedTensor
from tenfold.ranks import Allotment, Budget, Candidate
from tenfold.ranks.budget import STORED
from tenfold.ranks.lasso import Lasso


def absorb_gates_(
    model: nn.Module, budget: Budget | None = None, *, latencies: LatencyTable | None = None
) -> dict[str, Allotment]:
    """Drop the ranks whose gates are shut, in place; returns the ranks that are left, by weight.

    Without a budget the model computes what it did, but for rounding. With one, the rule `Lasso` also drops
    the narrowest gates of all layers, as many as it takes; fractions are of what the weights cost dense. A
    layer whose factors would then cost no less becomes dense, and has None. Build optimizers after this call:
    factors and biases are new ones. `latencies` is the table for a budget in latency.

    Raises:
        SelectionError: if the model has no gates.
        UnsupportedError: if the model is itself a factorized layer.
        BudgetError: if the budget cannot be met.

    >>> from tenfold.compress.gates import insert_gates_
    >>> from tenfold.nn import FactorizedLinear
    >>> model = nn.Sequential(FactorizedLinear(20, 10, rank=4))
    >>> _ = insert_gates_(model)
    >>> model[0].weight.gates["R"].data[1:] = 0
    >>> absorb_gates_(model)
    {'0.weight': {'R': 1}}
    """
    weights = gated(model)
    if isinstance(model, FactorizedLayer):
        raise UnsupportedError("the model is a single layer.", "Wrap it: nn.Sequential(layer).")
    wanted: Mapping[str, Allotment] = {name: weight.ranks for name, weight in weights.items()}
    if budget is not None:
        candidates = [_candidate(model, name, budget, latencies or LatencyTable()) for name in weights]
        wanted = Lasso(gate_widths(model))(candidates, budget)
    values = {id(w): None if (r := wanted[name]) is None else kept(w, r) for name, w in weights.items()}
    _replace(model, values)
    return {name: None if (v := values[id(w)]) is None else v.ranks for name, w in weights.items()}


def kept(weight: GatedTensor, ranks: Mapping[Axis, int]) -> Format:
    """The format over the widest open gates of every bond, so many at most and one at least.

    >>> from tenfold.nn import FactorizedTensor
    >>> weight = GatedTensor(FactorizedTensor.new((8, 6, 5), (3, 3, None), "tucker"))
    >>> kept(weight, {"R0": 2, "R1": 3}).ranks
    {'R0': 2, 'R1': 3}
    """
    with torch.no_grad():
        value, widths = weight.value, weight.widths()
        counts = {b: max(1, min(ranks[b], int((w > 0).sum()))) for b, w in widths.items()}
        chosen = {b: w.topk(counts[b]).indices.sort().values for b, w in widths.items()}
        arrays = []
        for axes, factor in zip(value.network.factors, value.factors, strict=True):
            for k, a in enumerate(axes):
                factor = factor.index_select(k, chosen[a]) if a in chosen else factor
            arrays.append(factor)
        return carried(_over(value, arrays))


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


def _over(value: Format, arrays: list[torch.Tensor]) -> Format:
    feed = iter(arrays)
    return value.with_factors([None if slot is None else next(feed) for slot in value.slots])


def _candidate(model: nn.Module, name: str, budget: Budget, table: LatencyTable) -> Candidate:
    """The dense weight that the factors stand for, in their format."""
    layer = model.get_submodule(name.rpartition(".")[0])
    assert isinstance(layer, FactorizedLayer)
    kind, layout, example = layer.weight.format, layer.layout, layer.planned()
    whole = tuple(_mode_number(layer.weight, k) for k, gone in enumerate(layer.weight.missing) if gone)
    dense = layer.to_dense() if budget.unit not in STORED else None
    return Candidate(
        name,
        kind,
        layout.mode_shape,
        whole,
        lambda: layer.weight.value.dense().detach(),
        flops=None if dense is None else flops_of(dense, kind, layout, example),
        itemsize=layer.weight.factors()[0].element_size(),
        latency=None if dense is None else latency_of(dense, kind, layout, example, table, whole),
    )


def _mode_number(weight: FactorizedTensor, slot: int) -> int:
    """The mode that is whole where this factor is missing."""
    pair = identity(weight.value.graph[slot])
    assert pair is not None
    return int(pair[0].removeprefix("m"))


def _replace(model: nn.Module, values: Mapping[int, Format | None]) -> None:
    """New layers for all that hold these weights, under all their names; shared weights stay shared."""
    made: dict[int, nn.Module] = {}
    weights: dict[int, nn.Module | nn.Parameter] = {}
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        if isinstance(layer, FactorizedLayer) and id(layer.weight) in values:
            if id(layer) not in made:
                new = _made(layer, values[id(layer.weight)])
                new.weight = weights.setdefault(id(layer.weight), new.weight)  # type: ignore[arg-type]
                made[id(layer)] = new
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, made[id(layer)])


def _made(layer: FactorizedLayer, value: Format | None) -> nn.Module:
    if value is None:
        return layer.to_dense()
    assert isinstance(layer.weight, GatedTensor)
    new = type(layer).from_dense(layer, value, layer.layout, layer.planned())
    new.weight.requires_grad_(layer.weight.plain.requires_grad)
    return new
