"""Any format by Gauss and Newton's method."""

from dataclasses import dataclass
from typing import TypeVar

from tenfold.core.errors import OptionError
from tenfold.decompose.base import Fit, check_steps, methods, relative
from tenfold.decompose.gauss_newton import GaussNewton
from tenfold.decompose.networks.alternation import Alternation
from tenfold.decompose.networks.general import AnyFormat
from tenfold.decompose.networks.method import NetworkMethod
from tenfold.decompose.networks.residual import problem
from tenfold.formats import Format

F = TypeVar("F", bound=Format)


@dataclass(frozen=True)
class AllAtOnce(NetworkMethod[F]):
    """Base class of Gauss–Newton methods.

    Stops (`converged`) as `GaussNewton` does, on a relative decrease of the squared error below `tol`;
    `damped` takes Levenberg and Marquardt's damping in the place of the trust region.
    """

    tol: float = 1e-8
    max_steps: int = 200
    cg_steps: int = 25
    damped: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.max_steps)
        if self.tol < 0 or self.cg_steps < 1:
            raise OptionError(
                f"{self} has an option below its range.", "Give tol of 0 or more, cg_steps of 1 or more."
            )

    def _finished(self, run: Alternation) -> Fit[F]:
        search = GaussNewton(
            max_steps=self.max_steps, tol=self.tol, cg_steps=self.cg_steps, damped=self.damped
        )
        found = search(problem(run.tensor, run.network), run.factors)
        trace = tuple(relative((2 * value) ** 0.5, run.whole) for value in found.trace)
        error = relative((2 * found.local.value) ** 0.5, run.whole)
        return Fit(self._value(run.network, found.point), error, found.steps, found.converged, trace)


@methods.register("network_gn")
@dataclass(frozen=True)
class NetworkGN(AllAtOnce[Format], AnyFormat):
    """All factors at once: minimises ½‖M(F) - T‖² by Gauss–Newton steps in a trust region.

    Steps solve JᴴJ p = -Jᴴ(M - T) by a few conjugate gradients. JᴴJ p is a derivative of the network that
    meets its own conjugate (`DoubleLayer`), without the tensor; the preconditioner inverts the blocks on the
    diagonal, the Gram matrices of alternating least squares. JᴴJ is always singular, because factors can be
    changed along every bond without changing M; conjugate gradients from zero stay where it is not.

    Choose it where alternating least squares creeps: rings, block terms, nearly parallel components, and
    where high accuracy is wanted: it converges quadratically to an exact fit.

    `kind` is the name of the format, `static` its own options. Starts from `trial_steps` sweeps of
    alternating least squares, from the SVD-type method of the format where there is one, or at random; of
    `restarts` starts, all but the first random, the best `finalists` go on. Stops (`converged`) as
    `GaussNewton` does, on a relative decrease of the squared error below `tol`.

    Cost of a step: O(size · rank) twice for the residual and its gradient; up to `cg_steps` double-layer
    products, which do not touch the tensor. Memory: two tensors.

    Source: Sorber, Van Barel & De Lathauwer, SIAM J. Optim. 23(2), 2013, for CP and block terms.

    >>> import numpy as np
    >>> from tenfold.formats import CP
    >>> x = CP.random((5, 6, 7), 3, like=np.zeros(()), generator=0).dense()
    >>> NetworkGN("cp")(x, 3, generator=0).error < 1e-12
    True
    """

    def __post_init__(self) -> None:
        AnyFormat.__post_init__(self)
        AllAtOnce.__post_init__(self)
