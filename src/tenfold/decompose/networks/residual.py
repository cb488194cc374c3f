"""½‖M(F) - T‖² for a network M of factors F: gradient, Gauss–Newton products, preconditioner."""

from functools import cached_property
from math import prod

from tenfold.core.arrays import Array, adjoint, device_of, epsilon, namespace
from tenfold.core.contraction import lower_contraction
from tenfold.core.network import Network
from tenfold.core.program import run
from tenfold.decompose.base import norm
from tenfold.decompose.local_problem import At, Local
from tenfold.decompose.networks.double_layer import DoubleLayer, closures, lone
from tenfold.decompose.networks.factor_problem import Gradients, Grams, columns, refolded
from tenfold.decompose.networks.gauge import Factors, balanced
from tenfold.decompose.networks.general import dense
from tenfold.decompose.networks.lbfgs import joined, parted

UNKNOWNS = 256
"""Up to so many unknowns the Jacobian is formed, and steps are solved directly,"""

ENTRIES = 2**22
"""if it has no more entries than these."""


def problem(tensor: Array, network: Network) -> At:
    """½‖M(F) - T‖² near any factors."""
    return lambda factors: NetworkResidual(tensor, network, factors)


class NetworkResidual(Local):
    """½‖M(F) - T‖² near some factors of a network.

    >>> import numpy as np
    >>> product = Network((("m0", "R"), ("R", "m1")), ("m0", "m1"), (("m0", 1), ("m1", 1), ("R", 1)))
    >>> near = problem(np.asarray([[7.0]]), product)((np.asarray([[2.0]]), np.asarray([[3.0]])))
    >>> near.value, [float(g[0, 0]) for g in near.gradient]
    (0.5, [-3.0, -2.0])
    """

    def __init__(self, tensor: Array, network: Network, factors: Factors) -> None:
        self.tensor, self.network, self.point = tensor, network, factors

    @cached_property
    def residual(self) -> Array:
        """M(F) - T."""
        return dense(self.network, self.point) - self.tensor

    @cached_property
    def value(self) -> float:
        """From the residual, so that nothing cancels."""
        return 0.5 * norm(self.residual) ** 2

    @cached_property
    def gradient(self) -> Factors:
        """Jᴴ (M - T): every factor's environment in the residual."""
        environments = Gradients(self.residual, self.network, self.point)
        n = len(self.point)
        return tuple(refolded(self.network, k, environments(k)) for k in range(n))

    @cached_property
    def _double(self) -> DoubleLayer:
        return DoubleLayer(self.network, self.point)

    def gram(self, direction: Factors) -> Factors:
        """By the Jacobian where it is small enough to be formed, else by the double layer."""
        if not self._small:
            return self._double(direction)
        return parted(adjoint(self._jacobian) @ (self._jacobian @ joined(direction)), direction)

    @property
    def _small(self) -> bool:
        unknowns = self.network.numel
        return unknowns <= UNKNOWNS and unknowns * prod(self.network.shape) <= ENTRIES

    @cached_property
    def _jacobian(self) -> Array:
        return jacobian(self.network, self.point)

    @cached_property
    def _blocks(self) -> list[tuple[Array, Array]]:
        """Eigenvalues, kept away from zero, and eigenvectors of every block on the diagonal."""
        xp, grams = namespace(*self.point), Grams(self.network, self.point)
        pairs = [xp.linalg.eigh(grams(k)) for k in range(len(self.point))]
        floor = epsilon(self.point[0]) ** 0.5
        return [(xp.maximum(w, _floor(w, floor)), v) for w, v in pairs]

    def precondition(self, residual: Factors, shift: float) -> Factors:
        """The inverse of every block on the diagonal, as in alternating least squares."""
        return tuple(self._block_solve(k, r, shift) for k, r in enumerate(residual))

    def _block_solve(self, k: int, residual: Array, shift: float) -> Array:
        xp = namespace(residual)
        w, v = self._blocks[k]
        vh = adjoint(v)
        inside = xp.matmul(vh, columns(self.network, k, residual)) / (w + shift)[..., None]
        return refolded(self.network, k, xp.matmul(v, inside))

    def solve(self, target: Factors, shift: float) -> Factors | None:
        """By the eigenvalues of JᴴJ, where the Jacobian is small enough to be formed."""
        if not self._small:
            return None
        xp, unknowns = namespace(*target), self.network.numel
        w, v = self._spectrum
        kept = w > 10 * unknowns * epsilon(w) * xp.max(w)
        inverse = xp.where(kept, 1.0 / (xp.where(kept, w, 1.0) + shift), 0.0)
        return parted(v @ (inverse * (adjoint(v) @ joined(target))), target)

    @cached_property
    def _spectrum(self) -> tuple[Array, Array]:
        """Eigenvalues and eigenvectors of JᴴJ."""
        matrix = self._jacobian
        w, v = namespace(matrix).linalg.eigh(adjoint(matrix) @ matrix)
        return w, v

    def settled(self) -> "NetworkResidual":
        """The same tensor with norms spread evenly."""
        even = NetworkResidual(self.tensor, self.network, balanced(self.network, self.point))
        even.__dict__.update(
            {name: self.__dict__[name] for name in ("residual", "value") if name in self.__dict__}
        )
        return even


def jacobian(network: Network, factors: Factors) -> Array:
    """The derivative of all entries by all elements of the factors, one column for each.

    >>> import numpy as np
    >>> product = Network((("m0", "R"), ("R", "m1")), ("m0", "m1"), (("m0", 1), ("m1", 1), ("R", 1)))
    >>> jacobian(product, (np.asarray([[2.0]]), np.asarray([[3.0]])))
    array([[3., 2.]])
    """
    xp = namespace(*factors)
    return xp.concat([_block(network, factors, k) for k in range(len(factors))], axis=1)


def _block(network: Network, factors: Factors, k: int) -> Array:
    """The columns of factor k: its environment, and ones where a mode meets itself."""
    xp, like, held = namespace(*factors), factors[0], [a for a in network.factors[k] if a in network.modes]
    modes = {a: f"{a}'" for a in held}
    eyes = [xp.eye(network.size_of[a], dtype=like.dtype, device=device_of(like)) for a in held]
    others = [n for n in range(len(factors)) if n != k]
    ones = closures(network, like)
    leaves = (
        *(network.factors[n] for n in others),
        *((a, modes[a]) for a in held),
        *((b,) for b in lone(network)),
    )
    sizes = network.sizes + tuple((modes[a], network.size_of[a]) for a in held)
    columns = tuple(modes.get(a, a) for a in network.factors[k])
    program = lower_contraction(Network(leaves, (), sizes), (*network.modes, *columns))
    block = run(program, (*(factors[n] for n in others), *eyes, *ones), xp)
    return xp.reshape(block, (prod(network.shape), -1))


def _floor(values: Array, share: float) -> Array:
    """A share of the largest eigenvalue of all, and one if all are zero."""
    xp = namespace(values)
    largest = xp.max(values)
    return xp.where(largest > 0, share * largest, xp.ones_like(largest))
