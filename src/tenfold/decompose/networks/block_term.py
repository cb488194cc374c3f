"""Block terms by alternating least squares and by Gauss and Newton's method."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tenfold.core.arrays import Array
from tenfold.core.network import Network
from tenfold.decompose.base import methods
from tenfold.decompose.networks.als import Alternating
from tenfold.decompose.networks.block_term_gevd import block_term_gevd
from tenfold.decompose.networks.gauge import Factors
from tenfold.decompose.networks.general import drawn, padded
from tenfold.decompose.networks.gn import AllAtOnce
from tenfold.formats import BlockTerm


def started(start: str, tensor: Array, network: Network, generator: Any) -> Factors:
    """Factors by generalised eigenvectors, where that is possible and asked for; else random ones."""
    found = block_term_gevd(tensor, network, generator) if start == "gevd" else None
    if found is None:
        return drawn(tensor, network, generator)
    return padded(network, found.factors, generator)


@methods.register("btd_als")
@dataclass(frozen=True)
class BlockTermALS(Alternating[BlockTerm]):
    """Sums of Tucker terms; each factor in turn, of all terms at once, solves its least-squares problem.

    The number of terms is the size of bond T, which comes first among the ranks: (T, R0, R1, ...); terms of
    ranks (L, L, 1) are those of ranks (T, L, L, 1), with a core. For the matrices of a mode, with the term
    and the rank as columns of B, and for all cores together,

        U Bᴴ B = T Bᴴ,     Bᴴ B = blocks [[S^t; W .. I .. W]] (S^s)ᴴ,  W = U^sᴴ U^t over pairs of terms

    which the planner contracts without forming B. The initial values matter: `start="gevd"` takes generalised
    eigenvectors (see `block_term_gevd`), which find the exact terms where two modes are long enough, or else
    random ones; of `restarts` starts, the others random, the best `finalists` after `trial_steps` sweeps go
    on until one is exact.

    Choose `BlockTermGN` first: it needs several times fewer steps. Stops (`converged`) when a sweep changes
    the error by less than `tol` relative to it.

    Cost of a sweep: O(size · T · L) for the tensor, O((T L)³) for matrices, O((T L M N)³) for the cores.

    Source: De Lathauwer & Nion, SIAM J. Matrix Anal. Appl. 30(3), 2008, part III.

    >>> import numpy as np
    >>> x = BlockTerm.random((8, 9, 10), (2, 2, 2, 2), like=np.zeros(()), generator=0).dense()
    >>> BlockTermALS(tol=1e-4)(x, (2, 2, 2, 2), generator=0).error < 1e-9
    True
    """

    format: ClassVar = BlockTerm
    starts: ClassVar = ("gevd", "random")
    start: str = "gevd"
    restarts: int = 6
    finalists: int = 2

    def _started(self, tensor: Array, network: Network, generator: Any) -> Factors:
        return started(self.start, tensor, network, generator)


@methods.register("btd_gn")
@dataclass(frozen=True)
class BlockTermGN(AllAtOnce[BlockTerm]):
    """Sums of Tucker terms by Gauss–Newton steps in a trust region: cores and matrices of all terms at once.

    Products with JᴴJ go over all pairs of terms, in the small spaces of their ranks, by one derivative of the
    network that meets its conjugate; the preconditioner has the Gram matrices of alternating least squares.
    Steps of small problems are solved directly. The number of terms is the size of bond T, which comes first
    among the ranks: (T, R0, R1, ...). Terms of ranks (L, L, 1), a matrix of rank L times a vector, are those
    of ranks (T, L, L, 1): `BlockTerm.ll1` builds such.

    The initial values matter: see `BlockTermALS` for `start`, `restarts`, `finalists` and `trial_steps`.
    Stops (`converged`) as `GaussNewton` does, on a relative decrease of the squared error below `tol`.

    Cost of a step: O(size · T · L) for the residual and its gradient, and up to `cg_steps` products of
    O(T² (n L² + L⁴)), which do not touch the tensor, for modes of size n and ranks L.

    Source: Sorber, Van Barel & De Lathauwer, SIAM J. Optim. 23(2), 2013; De Lathauwer, SIAM J. Matrix Anal.
    Appl. 30(3), 2008, part II.

    >>> import numpy as np
    >>> x = BlockTerm.random((6, 7, 8), (3, 3, 3, 1), like=np.zeros(()), generator=1).dense()
    >>> BlockTermGN()(x, (3, 3, 3, 1), generator=0).error < 1e-10
    True
    """

    format: ClassVar = BlockTerm
    starts: ClassVar = ("gevd", "random")
    start: str = "gevd"
    restarts: int = 6
    finalists: int = 2

    def _started(self, tensor: Array, network: Network, generator: Any) -> Factors:
        return started(self.start, tensor, network, generator)
