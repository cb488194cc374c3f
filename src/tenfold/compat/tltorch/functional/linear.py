"""Linear maps by factorized weights."""

import torch.nn.functional as F
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.core.errors import OptionError

IMPLEMENTATIONS = ("factorized", "reconstructed")


def factorized_linear(
    x: Tensor,
    weight: Tensor | FactorizedTensor,
    bias: Tensor | None = None,
    in_features: int | None = None,
    implementation: str = "factorized",
) -> Tensor:
    """x (..., in) times the transpose of `weight` (out, in), which may be a tensor or be factorized.

    "factorized" contracts x with the factors in the cheapest order, "reconstructed" makes the weight dense.
    A factorized tensor that is no matrix is one of `in_features` columns.
    """
    if implementation not in IMPLEMENTATIONS:
        raise OptionError(
            f"implementation={implementation!r} came.", f"Choose one of {', '.join(IMPLEMENTATIONS)}."
        )
    if isinstance(weight, FactorizedTensor):
        found = weight._linear(x, bias) if implementation == "factorized" else None
        if found is not None:
            return found
        weight = weight._dense()
    return F.linear(x, weight.reshape(-1, in_features or x.shape[-1]), bias)
