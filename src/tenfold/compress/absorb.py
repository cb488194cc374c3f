"""Ranks whose gates are shut are dropped; the other gates go into the factors."""

from collections.abc import Mapping

import torch
from torch import nn

from tenfold.compress.cost import flops_of
from tenfold.compress.gates import gate_widths, gated
from tenfold.compress.latency import LatencyTable, latency_of
from tenfold.core.errors import UnsupportedError
from tenfold.core.network import Axis
from tenfold.formats import Format
from tenfold.formats.graphs import identity
from tenfold.nn import FactorizedLayer, FactorizedTensor, PivotedTensor
from tenfold.nn.bonds.gates import GatedTensor
from tenfold.nn.bonds.shrinking import carried, replace_weights, sliced
from tenfold.nn.tensor.pivoted import elements
from tenfold.ranks import Allotment, Budget, Candidate, allot
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
        wanted = allot(Lasso(gate_widths(model)), candidates, budget)
    values = {id(w): None if (r := wanted[name]) is None else kept(w, r) for name, w in weights.items()}
    replace_weights(model, values)
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
        return carried(sliced(value, chosen))


def _candidate(model: nn.Module, name: str, budget: Budget, table: LatencyTable) -> Candidate:
    """The dense weight that the factors stand for, in their format."""
    layer = model.get_submodule(name.rpartition(".")[0])
    assert isinstance(layer, FactorizedLayer)
    kind, layout, example = layer.weight.format, layer.layout, layer.planned()
    whole = tuple(_mode_number(layer.weight, k) for k, gone in enumerate(layer.weight.missing) if gone)
    dense = layer.to_dense() if not set(budget.units) <= set(STORED) else None
    return Candidate(
        name,
        kind,
        layout.mode_shape,
        whole,
        lambda: layer.weight.value.dense().detach(),
        flops=None if dense is None else flops_of(dense, kind, layout, example),
        itemsize=layer.weight.factors()[0].element_size(),
        latency=None if dense is None else latency_of(dense, kind, layout, example, table, whole),
        stored=elements if isinstance(layer.weight, PivotedTensor) else None,
    )


def _mode_number(weight: FactorizedTensor, slot: int) -> int:
    """The mode that is whole where this factor is missing."""
    pair = identity(weight.value.graph[slot])
    assert pair is not None
    return int(pair[0].removeprefix("m"))
