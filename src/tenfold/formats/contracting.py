"""A network contracted by itself, with any number of factors."""

from collections.abc import Sequence

from tenfold.core.arrays import Array, cast, namespace
from tenfold.core.contraction import lower_contraction
from tenfold.core.network import Axes, Network
from tenfold.core.program import run


def contracted(network: Network, factors: Sequence[Array], outputs: Axes) -> Array:
    """The factors contracted to the axes `outputs`, in the cheapest order, which is planned once.

    Factors of several dtypes are brought to the one that holds all of them.

    >>> import numpy as np
    >>> network = Network((("i", "R"), ("R", "j")), ("i", "j"), (("i", 2), ("R", 3), ("j", 4)))
    >>> contracted(network, [np.ones((2, 3)), np.ones((3, 4))], ("j", "i")).shape
    (4, 2)
    """
    xp = namespace(*factors)
    if any(f.dtype != factors[0].dtype for f in factors):
        dtype = xp.result_type(*(f.dtype for f in factors))
        factors = [cast(f, dtype) for f in factors]
    if len(factors) == 1:
        return _summed(factors[0], network.factors[0], outputs)
    return run(lower_contraction(network, outputs), tuple(factors), xp)


def _summed(factor: Array, axes: Axes, outputs: Axes) -> Array:
    """One factor alone: other axes are summed, the rest put in order."""
    xp = namespace(factor)
    if gone := tuple(k for k, a in enumerate(axes) if a not in outputs):
        factor = xp.sum(factor, axis=gone)
    left = [a for a in axes if a in outputs]
    return xp.permute_dims(factor, tuple(left.index(a) for a in outputs))
