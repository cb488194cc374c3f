"""Which layers calibration knows, and what it cannot say of them."""

from collections.abc import Sequence

from torch import nn

from tenfold.compress.calibration import bilinear_calls, lookups, transposed_calls  # noqa: F401, they register
from tenfold.compress.calibration.calls import Call, calls
from tenfold.compress.calibration.observers import observers


def calls_of(layer: nn.Module) -> type[Call]:
    """How the calls of a known layer are seen."""
    return calls[type(layer)]


def is_known(layer: nn.Module) -> bool:
    """Whether calls of such layers can be seen."""
    return type(layer) in calls


def refusal(layers: Sequence[nn.Module], statistic: str, max_patch: int | None = None) -> str:
    """Why a statistic cannot be had of layers that share a weight, empty if it can.

    >>> refusal([nn.RNN(2, 2)], "patch_moment"), refusal([nn.Conv2d(2, 2, 3)], "patch_moment", 8)
    ('statistics of RNN are not known', 'its patches have 18 entries, more than max_patch=8')
    """
    if strange := [type(m).__name__ for m in layers if not is_known(m)]:
        return f"statistics of {strange[0]} are not known"
    if found := [reason for m in layers if (reason := calls_of(m).refusal(m, statistic))]:
        return found[0]
    if max_patch is None or all(calls_of(m).patches_are_inputs(m) for m in layers):
        return ""
    return observers[statistic].refusal(calls_of(layers[0]).rows(layers[0])[1], max_patch)
