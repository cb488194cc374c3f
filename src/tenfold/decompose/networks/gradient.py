"""Any format by a quasi-Newton method on all factors."""

from dataclasses import dataclass

from tenfold.core.errors import OptionError
from tenfold.decompose.base import Fit, check_steps, methods, relative
from tenfold.decompose.networks.alternation import Alternation
from tenfold.decompose.networks.general import AnyFormat
from tenfold.decompose.networks.lbfgs import LBFGS
from tenfold.decompose.networks.method import NetworkMethod
from tenfold.decompose.networks.residual import problem
from tenfold.formats import Format


@methods.register("network_gradient")
@dataclass(frozen=True)
class NetworkGradient(NetworkMethod[Format], AnyFormat):
    """All factors at once, by L-BFGS on ½‖M(F) - T‖² with a strong Wolfe line search.

    The gradient of each factor is its environment in the residual: the contraction of M(F) - T with all other
    factors, of which the planner shares the parts. Curvature comes from the last `memory` steps and from the
    Gram matrices of alternating least squares, the blocks on the diagonal of JᴴJ.

    Choose it for large networks where a Gauss–Newton step costs too much, such as PEPS and MERA, whose double
    layers are expensive, and for formats of your own; `NetworkGN` needs fewer steps where it can.

    `kind` is the name of the format, `static` its own options. Starts from `trial_steps` sweeps of
    alternating least squares, from the SVD-type method of the format where there is one, or at random; of
    `restarts` starts, all but the first random, the best `finalists` go on. Stops (`converged`) as `LBFGS`
    does, on a relative decrease of the squared error below `tol`.

    Cost of a step: O(size · rank) once or twice, for value and gradient. Memory: two tensors and 2 `memory`
    times the factors.

    Source: Acar, Dunlavy & Kolda, J. Chemometrics 25(2), 2011, for CP; Nocedal & Wright 2006, chapter 7.

    >>> import numpy as np
    >>> from tenfold.formats.lattices import peps, peps_graph
    >>> x = peps(2, 2, 3, 2, like=np.zeros(()), generator=0).dense()
    >>> method = NetworkGradient("general", {"joined": peps_graph(2, 2)}, restarts=3)
    >>> method(x, 2, generator=0).error < 1e-6
    True
    """

    tol: float = 1e-10
    max_steps: int = 1000
    memory: int = 20

    def __post_init__(self) -> None:
        AnyFormat.__post_init__(self)
        NetworkMethod.__post_init__(self)
        check_steps(self.max_steps)
        if self.tol < 0 or self.memory < 1:
            raise OptionError(f"{self} has an option below its range.", "Give tol >= 0 and memory >= 1.")

    def _finished(self, run: Alternation) -> Fit[Format]:
        search = LBFGS(max_steps=self.max_steps, tol=self.tol, memory=self.memory)
        found = search(problem(run.tensor, run.network), run.factors)
        trace = tuple(relative((2 * value) ** 0.5, run.whole) for value in found.trace)
        error = relative((2 * found.local.value) ** 0.5, run.whole)
        return Fit(self._value(run.network, found.point), error, found.steps, found.converged, trace)
