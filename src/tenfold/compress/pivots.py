"""Factors of low rank stored without what their choice leaves free, and as plain factors again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tenfold.compress.apply import factorized
from tenfold.core.arrays import to_compute
from tenfold.decompose.matrices.svd import balanced
from tenfold.formats import LowRank
from tenfold.nn import FactorizedTensor, PivotedTensor
from tenfold.nn.tensor.pivoted import elements


def pivot_(model: nn.Module) -> tuple[str, ...]:
    """Store the matrices of low rank of a model as `PivotedTensor`, in place, where that is less.

    Returns the names of these weights. The model computes what it did, up to rounding. To train plain factors
    and to keep less: `unpivot_`, `tune`, `pivot_`. Tables of embeddings stay as they are, of which rows are
    looked up, and so do weights with gates or dropout, and such that share factors. Build optimizers after
    this call.

    >>> from tenfold.compress import compress
    >>> from tenfold.ranks import Budget
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(64, 64))
    >>> small = compress(net, Budget(params=0.5), example=torch.zeros(1, 64), preset="weight_svd").model
    >>> pivot_(small), small[0].weight.numel()
    (('0.weight',), 1856)
    """
    return _changed(model, _pivoted)


def unpivot_(model: nn.Module) -> tuple[str, ...]:
    """Store what `PivotedTensor` holds as plain factors, in place; the names of these weights.

    Both factors get the roots of the singular values, as a truncated SVD has them.
    """
    return _changed(model, _plain)


def _changed(
    model: nn.Module, change: Callable[[FactorizedTensor], FactorizedTensor | None]
) -> tuple[str, ...]:
    """Put what `change` makes of a weight in its place, in all layers that hold it."""
    made: dict[int, tuple[FactorizedTensor, FactorizedTensor | None]] = {}
    names: list[str] = []
    for name, layer in factorized(model):
        weight = layer.weight
        first = id(weight) not in made
        if first:
            made[id(weight)] = weight, change(weight)
        if (new := made[id(weight)][1]) is not None:
            layer.weight = new
            names += [f"{name}.weight"] * first
    return tuple(names)


def _pivoted(weight: FactorizedTensor) -> FactorizedTensor | None:
    if type(weight) is not FactorizedTensor or weight.format is not LowRank:
        return None
    looked_up = weight.program is not None and weight.program.gathers
    if looked_up or elements(weight.network) >= weight.network.numel:
        return None
    rows, _ = weight.value.shape
    return PivotedTensor.of(weight) if weight.ranks["R"] <= rows else None


def _plain(weight: FactorizedTensor) -> FactorizedTensor | None:
    if type(weight) is not PivotedTensor:
        return None
    plain = FactorizedTensor(_singular(weight.value), weight.layout, weight.program)
    return plain.requires_grad_(weight.requires_grad).train(weight.training)


@torch.no_grad()
def _singular(value: Any) -> LowRank:
    """The factors that a singular value decomposition of the matrix gives."""
    left, right = to_compute(value.left), to_compute(value.right)
    tall, small = torch.linalg.qr(left)
    flat, other = torch.linalg.qr(right.mH)
    u, s, vh = torch.linalg.svd(small @ other.mH, full_matrices=False)
    return balanced(tall @ u, s, vh @ flat.mH).map(lambda f: f.to(value.dtype))
