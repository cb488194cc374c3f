"""What becomes of a tensor held as factors where a function has no factorized form: it is made dense."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch.utils._pytree import tree_leaves

from tenfold.nn.tensor.described import Described


class DenseFallbackWarning(UserWarning):
    """A factorized weight was made dense because the function that met it has no factorized form."""


def dense(x: Any) -> Any:
    """The dense tensor, and anything else as it is."""
    return x.dense() if isinstance(x, Described) else x


def warn(name: str, args: Sequence[Any]) -> None:
    """A warning where the weight of a layer is made dense: its factors then save nothing."""
    if any(isinstance(a, Described) and a.program is not None for a in tree_leaves(args)):
        warnings.warn(
            f"{name} makes a factorized weight dense at each call", DenseFallbackWarning, stacklevel=3
        )
