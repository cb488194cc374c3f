"""The true error of a fit, without a second tensor in memory."""

import torch

from tenfold.core.arrays import Array, epsilon, is_traced
from tenfold.core.pieces import frobenius, slabs, together
from tenfold.formats import Format

TRUSTED = 1e5
"""Times eps: squared relative errors above that are read off the norms, with an accuracy of about 1e-5."""


def residual(tensor: Array, value: Format) -> float:
    """‖tensor - value‖, of which one slab is made dense at a time."""
    if is_traced(tensor):
        return frobenius(tensor - value.dense())
    tensor, value = _constant(tensor), value.map(_constant)
    return together(*(frobenius(tensor[where] - value[where].dense()) for where in slabs(tensor.shape)))


def projection_error(tensor: Array, value: Format, whole: float, kept: float) -> float:
    """‖tensor - value‖ for a value of norm `kept`, an orthogonal projection of a tensor of norm `whole`.

    Equals sqrt(whole² - kept²), which loses half the digits: where that matters, the residual is measured.
    """
    if not is_traced(tensor):
        share = (1 - kept / whole) * (1 + kept / whole) if whole > 0 else 0.0
        if share > TRUSTED * epsilon(tensor):
            return float(whole * share**0.5)
    return residual(tensor, value)


def _constant(x: Array) -> Array:
    return x.detach() if isinstance(x, torch.Tensor) else x
