"""How much a CP decomposition moves when its factors do, and the scaling that keeps it stillest."""

import math

from tenfold.core.arrays import Array, is_complex, namespace
from tenfold.decompose.base import number
from tenfold.formats import CP


def sensitivity(cp: CP) -> float:
    """The expected squared change of the tensor, relative to the variance of small noise on all factors.

        lim E‖X(A + dA, B + dB, …) - X(A, B, …)‖² / σ² = Σ_n I_n Σ_r Π_(m≠n) ‖a_r^(m)‖²,    σ → 0

    with independent entries of variance σ² in dA, dB, …, and I_n rows in the factor of mode n. Components
    that cancel one another are large, and so is this: fine-tuning and low precision then do harm. It depends
    on how the norm of a component is spread over its vectors, see `stillest`. Cost: a pass over the factors.

    Source: Phan et al., ECCV 2020, arXiv:2008.05441, definition 1.

    >>> import numpy as np
    >>> sensitivity(CP((np.array([[2.0]]), np.array([[3.0], [0.0]]))))  # 1 · 3² + 2 · 2²
    17.0
    """
    squares = [squared_norms(f) for f in cp.matrices]
    xp = namespace(*cp.matrices)
    return sum(n * number(xp.sum(w)) for n, w in zip(cp.shape, others(squares), strict=True))


def stillest(cp: CP) -> CP:
    """The same components with the least sensitivity: all vectors of a component have entries of equal size.

    Where ‖a_r‖² ‖b_r‖² … stays, the sum of I_n / ‖a_r^(n)‖² is least if its terms are equal (inequality of
    the means).

    >>> import numpy as np
    >>> even = stillest(CP((np.array([[18.0]]), np.array([[1.0], [1.0]]), np.array([[1.5]]))))
    >>> [f.ravel().round(12).tolist() for f in even.matrices]
    [[3.0], [3.0, 3.0], [3.0]]
    """
    sizes = [namespace(f).sqrt(squared_norms(f) / f.shape[0]) for f in cp.matrices]
    xp = namespace(*cp.matrices)
    safe = [xp.where(s > 0, s, xp.ones_like(s)) for s in sizes]
    common = math.prod(sizes) ** (1 / len(sizes))
    return CP(tuple(f * (common / s) for f, s in zip(cp.matrices, safe, strict=True)))


def weights(cp: CP, mode: int) -> Array:
    """w with sensitivity = Σ_r w_r ‖a_r‖² + (what does not depend on the factor A of this mode).

    >>> import numpy as np
    >>> cp = CP((np.array([[2.0]]), np.array([[3.0], [0.0]]), np.array([[5.0]])))
    >>> weights(cp, 0)  # 2 · 5² + 1 · 3²
    array([59.])
    """
    rest = [k for k in range(len(cp.matrices)) if k != mode]
    products = others([squared_norms(cp.matrices[k]) for k in rest])
    return sum(cp.shape[k] * w for k, w in zip(rest, products, strict=True))


def others(factors: list[Array]) -> list[Array]:
    """For each of some arrays the product of all the others."""
    ones = namespace(*factors).ones_like(factors[0])
    return [math.prod(factors[:k] + factors[k + 1 :], start=ones) for k in range(len(factors))]


def squared_norms(factor: Array) -> Array:
    """‖a_r‖² of every column."""
    xp = namespace(factor)
    parts = [xp.real(factor), xp.imag(factor)] if is_complex(factor) else [factor]
    return sum(xp.sum(p * p, axis=0) for p in parts)
