"""The default CP decomposition: compress, start well, fit the core, refine."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tenfold.core.arrays import Array, constant, epsilon
from tenfold.core.errors import OptionError
from tenfold.core.network import Network
from tenfold.core.pieces import frobenius
from tenfold.decompose.base import Fit, Method, check_steps, methods
from tenfold.decompose.cp.als import best_of
from tenfold.decompose.cp.gn import CPGN
from tenfold.decompose.cp.gradient import attached
from tenfold.decompose.cp.grams import component_norms
from tenfold.decompose.cp.init import STARTS
from tenfold.decompose.cp.nesterov import CPNesterov
from tenfold.decompose.tucker.randomized_hosvd import RandomizedHOSVD
from tenfold.formats import CP, Tucker

FEW = 4096
"""Unknowns of the core up to which Gauss–Newton steps cost little."""
CLOSE = 0.1
"""Relative error below which they are worth their cost for any number of unknowns."""
CANCELLING = 30
"""How much larger than the tensor components may be."""


@methods.register("cp")
@dataclass(frozen=True)
class CPD(Method[CP]):
    """The CP decomposition to take unless you know better: it puts the other algorithms together.

    1. Modes longer than the rank are cut to a little more by randomised ST-HOSVD, if what is left is less
       than `compress` of the tensor: the best approximation lies nearly in that subspace, exactly if the
       tensor has the rank. All that follows costs as much less.
    2. Of `starts`, the first by eigenvectors (`gevd`, or the HOSVD where that does not apply) and the others
       random, the best after `warm` sweeps of `CPNesterov` is kept.
    3. From there on by `CPGN` where the core has few unknowns, or where the error is small already; by
       `CPNesterov` otherwise, which is faster for rough approximations at high rank, as those of kernels.
    4. The factors are expanded and refined on the tensor itself by the same algorithm.

    Stops (`converged`) when steps change the error by less than `tol` relative to it, after `max_steps` each
    of the core and of the tensor. Not converged are also components that cancel one another to a thirtieth
    of their norm while the error stays: there may be no best approximation then, and they grow for ever (De
    Silva & Lim 2008). `CPEPC` bounds them.

    Cost: that of `RandomizedHOSVD`, then of its parts on the core, and some two to ten passes over the
    tensor; memory: about as much as the tensor, and some ten times the factors.

    Source: the pipeline follows Vervliet, Debals & De Lathauwer, 'Tensorlab 3.0', 2016; see the parts for
    theirs.

    >>> import numpy as np
    >>> x = CP.random((30, 20, 10), 4, like=np.zeros(()), generator=0).dense()
    >>> CPD()(x, 4, generator=0).error < 1e-12
    True
    """

    format: ClassVar = CP
    levels: ClassVar = True
    tol: float = 1e-5
    max_steps: int = 200
    starts: int = 3
    warm: int = 10
    compress: float = 0.5

    def __post_init__(self) -> None:
        check_steps(self.max_steps)
        if self.tol < 0 or min(self.starts, self.warm) < 1 or not 0 <= self.compress <= 1:
            raise OptionError(
                f"{self} has an option out of range.",
                "Give tol >= 0, starts and warm of 1 or more, and compress from 0 to 1.",
            )

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[CP]:
        fixed, rank = constant(tensor), network.ranks["R"]
        whole = frobenius(fixed)
        if whole == 0:
            return Fit(CP(tuple(0 * f for f in STARTS["random"](fixed, rank, generator))), 0.0, 0)
        fit = self._continued(fixed, self._before(fixed, rank, whole, generator))
        converged = fit.converged and not diverging(fit, whole)
        return replace(fit, value=CP(attached(tensor, fit.value.matrices)), converged=converged)

    def _before(self, tensor: Array, rank: int, whole: float, generator: Any) -> Fit[CP]:
        """What the tensor is refined from: the fit of its core, or a start where it is its own."""
        small = compressed(tensor, rank, self.compress, generator)
        start = self._start(small.core, rank, generator)
        if small.core is tensor:
            return start
        return expanded(self._continued(small.core, start), small, whole)

    def _start(self, core: Array, rank: int, generator: Any) -> Fit[CP]:
        """The best of several starts after a few sweeps."""
        warm = CPNesterov(self.tol, self.warm)
        ways = ["gevd"] + ["random"] * (self.starts - 1)
        return best_of(warm.improved(core, STARTS[how](core, rank, generator)) for how in ways)

    def _continued(self, tensor: Array, fit: Fit[CP]) -> Fit[CP]:
        """The fit, improved by the algorithm that suits it."""
        few = fit.value.numel <= FEW or fit.error < CLOSE
        method: CPGN | CPNesterov = (CPGN if few else CPNesterov)(self.tol, self.max_steps)
        more = method.improved(tensor, fit.value.matrices)
        return replace(more, steps=fit.steps + more.steps, trace=fit.trace + more.trace)


def compressed(tensor: Array, rank: int, most: float, generator: Any) -> Tucker:
    """The tensor on its leading directions in every mode, if that leaves less than `most` of it.

    These are `rank` and a quarter more, or five: under noise the best approximation lies not quite in the
    leading ones. Otherwise the tensor itself is the core, and no mode has a matrix.
    """
    shape, width = tuple(tensor.shape), rank + max(5, rank // 4)
    sizes = [min(n, width, math.prod(shape) // n) for n in shape]
    if math.prod(sizes) >= most * math.prod(shape):
        return Tucker(tensor, (None,) * tensor.ndim)
    ranks = tuple(None if size == n else size for size, n in zip(sizes, shape, strict=True))
    return RandomizedHOSVD().fit(tensor, ranks, generator=generator).value


def expanded(fit: Fit[CP], small: Tucker, whole: float) -> Fit[CP]:
    """A fit of the core as one of the tensor, whose part outside the core counts as error."""
    kept = frobenius(small.core)
    outside = max(whole**2 - kept**2, 0.0)
    factors = [
        f if basis is None else basis @ f for basis, f in zip(small.matrices, fit.value.matrices, strict=True)
    ]
    error, *trace = [math.sqrt((e * kept) ** 2 + outside) / whole for e in (fit.error, *fit.trace)]
    return replace(fit, value=CP(tuple(factors)), error=error, trace=tuple(trace))


def diverging(fit: Fit[CP], whole: float) -> bool:
    """Whether components cancel one another to a thirtieth of their norm, without giving a small error.

    >>> import numpy as np
    >>> factor = np.asarray([[10.0, -10.0], [0.1, 0.0]])
    >>> large = CP((factor, factor, factor))
    >>> diverging(Fit(large, 0.1), 30.0)
    True
    """
    size = frobenius(component_norms(fit.value.matrices))
    return size > CANCELLING * whole and fit.error > epsilon(fit.value.matrices[0]) ** 0.5
