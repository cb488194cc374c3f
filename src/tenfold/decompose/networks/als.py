"""Any format by alternating least squares."""

from dataclasses import dataclass
from typing import TypeVar

from tenfold.core.errors import OptionError
from tenfold.decompose.base import Fit, check_steps, methods, norm, relative
from tenfold.decompose.networks.alternation import Alternation
from tenfold.decompose.networks.gauge import balanced
from tenfold.decompose.networks.general import AnyFormat, dense
from tenfold.decompose.networks.method import NetworkMethod
from tenfold.formats import Format

F = TypeVar("F", bound=Format)


@dataclass(frozen=True)
class Alternating(NetworkMethod[F]):
    """Base class of methods by alternating least squares.

    Stops (`converged`) when a sweep changes the error by less than `tol` relative to it. `damping` keeps
    steps short where the problem of a factor is nearly singular, and does not move the solution.
    """

    tol: float = 1e-6
    max_steps: int = 300
    damping: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.max_steps)
        if min(self.tol, self.damping) < 0:
            raise OptionError(f"{self} has an option below its range.", "Give tol and damping of 0 or more.")

    def _finished(self, run: Alternation) -> Fit[F]:
        run.damping = self.damping
        run.advance(self.tol, self.max_steps)
        factors = balanced(run.network, run.factors)
        error = relative(norm(run.tensor - dense(run.network, factors)), run.whole)
        trace = tuple(run.trace)
        return Fit(self._value(run.network, factors), error, len(trace), run.converged, trace)


@methods.register("network_als")
@dataclass(frozen=True)
class NetworkALS(Alternating[Format], AnyFormat):
    """Each factor in turn solves its linear least-squares problem; for every format, also of your own graph.

    With B the contraction of all other factors, conjugated for its Gram matrix, and T the tensor,

        (Bᴴ B + damping μ I) F = Bᴴ T + damping μ F,     μ = trace(Bᴴ B) / size

    Modes of the factor's own only number right-hand sides; modes that several factors carry number problems
    (slices). Bᴴ T and Bᴴ B are planned contractions that share partial results over a sweep, so that a sweep
    reads the tensor two to six times at orders 4 to 10 (measured), not once for each factor. On trees (tensor
    train, Tucker, hierarchical Tucker) QR factorisations keep all other factors orthonormal: then Bᴴ B = I
    and nothing is lost to the condition; a sweep goes around the tree and back. Elsewhere see `solve_psd`. A
    factor with more bonds than equations takes the solution of least norm.

    Choose it for formats that have no method of their own, and for rings. Its error never grows; it may creep
    ("swamps") where terms are nearly parallel, where `NetworkGN` does better.

    `kind` is the name of the format, `static` its own options. Starts with the SVD-type method of the format
    where there is one, or at random; of `restarts` starts, all but the first random, the best `finalists`
    after `trial_steps` sweeps go on. Stops (`converged`) when a sweep changes the error by less than `tol`
    relative to it.

    Cost of a sweep: O(size · rank) for the tensor, and the double-layer contractions; memory: a few arrays
    of at most the size of the tensor times a bond over a mode.

    Source: for trains Holtz, Rohwedder & Schneider, SIAM J. Sci. Comput. 34(2), 2012; for Tucker Kroonenberg
    & De Leeuw 1980; for rings Zhao et al. 2016, arXiv:1606.05535.

    >>> import numpy as np
    >>> from tenfold.formats import TensorTrain
    >>> x = TensorTrain.random((5, 6, 7), 2, like=np.zeros(()), generator=0).dense()
    >>> NetworkALS("tt", start="random")(x, 2, generator=0).error < 1e-12
    True
    >>> ring = (("m0", "A", "B"), ("m1", "B", "C"), ("m2", "C", "A"))
    >>> fit = NetworkALS("general", {"joined": ring}, tol=1e-4, max_steps=1000)(x, 2, generator=0)
    >>> fit.error < 1e-6
    True
    """

    def __post_init__(self) -> None:
        AnyFormat.__post_init__(self)
        Alternating.__post_init__(self)
