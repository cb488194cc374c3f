"""The least-squares problem of one factor of a network while all others stand still.

The tensor is linear in every factor: M = B F, where B holds the other factors. B is nowhere formed but where
the factor has more bonds than there are equations.
"""

from functools import lru_cache
from math import prod
from typing import NamedTuple

from tenfold.core.arrays import Array, adjoint, epsilon, is_complex, namespace
from tenfold.core.linalg import solve_psd
from tenfold.core.network import Axes, Network
from tenfold.decompose.networks.double_layer import Point, closures, conjugates, lone, primed
from tenfold.decompose.networks.environments import Environments, Target
from tenfold.decompose.networks.gauge import carriers


class Parts(NamedTuple):
    """The axes of a factor: modes that others carry too, modes of its own, bonds; and all other modes."""

    shared: Axes
    own: Axes
    bonds: Axes
    rest: Axes


@lru_cache(maxsize=8192)
def parts(network: Network, k: int) -> Parts:
    """The axes of factor k.

    >>> parts(Network((("s", "o", "R"), ("s", "R", "i")), ("o", "s", "i"), ()), 0)
    Parts(shared=('s',), own=('o',), bonds=('R',), rest=('i',))
    """
    axes = network.factors[k]
    modes = [a for a in axes if a in network.modes]
    shared = tuple(m for m in modes if len(carriers(network, m)) > 1)
    own = tuple(m for m in modes if m not in shared)
    rest = tuple(m for m in network.modes if m not in axes)
    return Parts(shared, own, tuple(a for a in axes if a not in modes), rest)


class Sides(NamedTuple):
    """Three closed networks with a target for each factor: right-hand sides, Gram matrices, designs."""

    gradients: tuple[Network, tuple[Target, ...]]
    grams: tuple[Network, tuple[Target, ...]]
    designs: tuple[Network, tuple[Target, ...]]


@lru_cache(maxsize=1024)
def sides(network: Network) -> Sides:
    """Plan the contractions of every factor's problem."""
    twin, n = primed(network), len(network.factors)
    ones, twins = tuple((b,) for b in lone(network)), tuple((b,) for b in lone(twin))
    sizes = tuple((dict(network.sizes) | dict(twin.sizes)).items())
    all_parts = [parts(network, k) for k in range(n)]
    names = dict(zip(network.bonds, twin.bonds, strict=True))
    return Sides(
        (
            Network((network.modes, *network.factors, *ones), (), sizes),
            tuple(Target(2 << k, (*p.shared, *p.bonds, *p.own)) for k, p in enumerate(all_parts)),
        ),
        (
            Network((*network.factors, *twin.factors, *ones, *twins), (), sizes),
            tuple(
                Target((1 << k) | (1 << (n + k)), (*p.shared, *(names[b] for b in p.bonds), *p.bonds))
                for k, p in enumerate(all_parts)
            ),
        ),
        (
            Network((*network.factors, *ones), (), sizes),
            tuple(Target(1 << k, (*p.shared, *p.rest, *p.bonds)) for k, p in enumerate(all_parts)),
        ),
    )


class Gradients:
    """Bᴴ T for every factor, in the order (shared, bonds, own)."""

    def __init__(self, tensor: Array, network: Network, factors: Point) -> None:
        arrays = (tensor, *conjugates(factors), *closures(network, tensor))
        self.environments = Environments(*sides(network).gradients, arrays)

    def __call__(self, k: int) -> Array:
        return self.environments(k)

    def put(self, changed: dict[int, Array]) -> None:
        """Renew factors."""
        self.environments.replace({k + 1: conjugates((f,))[0] for k, f in changed.items()})


class Grams:
    """Bᴴ B for every factor, as a stack of matrices: one for all shared modes together."""

    def __init__(self, network: Network, factors: Point) -> None:
        ones = closures(network, factors[0])
        self.network, self.count = network, len(factors)
        arrays = (*factors, *conjugates(factors), *ones, *ones)
        self.environments = Environments(*sides(network).grams, arrays)

    def __call__(self, k: int) -> Array:
        p, xp = parts(self.network, k), self.environments.xp
        r = self.network.product(p.bonds)
        return xp.reshape(self.environments(k), (self.network.product(p.shared), r, r))

    def put(self, changed: dict[int, Array]) -> None:
        """Renew factors."""
        twins = {self.count + k: conjugates((f,))[0] for k, f in changed.items()}
        self.environments.replace(changed | twins)


class Designs:
    """B for every factor, as a stack of matrices (rest, bonds)."""

    def __init__(self, network: Network, factors: Point) -> None:
        self.network = network
        arrays = (*factors, *closures(network, factors[0]))
        self.environments = Environments(*sides(network).designs, arrays)

    def __call__(self, k: int) -> Array:
        p, size, xp = parts(self.network, k), self.network.product, self.environments.xp
        return xp.reshape(self.environments(k), (size(p.shared), size(p.rest), size(p.bonds)))

    def put(self, changed: dict[int, Array]) -> None:
        """Renew factors."""
        self.environments.replace(changed)


def columns(network: Network, k: int, factor: Array) -> Array:
    """A factor as a stack of matrices (bonds, own), one for all shared modes together."""
    p, axes, xp = parts(network, k), network.factors[k], namespace(factor)
    ordered = xp.permute_dims(factor, tuple(axes.index(a) for a in (*p.shared, *p.bonds, *p.own)))
    return xp.reshape(ordered, tuple(network.product(group) for group in (p.shared, p.bonds, p.own)))


def refolded(network: Network, k: int, stack: Array) -> Array:
    """The inverse of `columns`."""
    p, axes, xp = parts(network, k), network.factors[k], namespace(stack)
    order = (*p.shared, *p.bonds, *p.own)
    return xp.permute_dims(xp.reshape(stack, network.extent(order)), tuple(order.index(a) for a in axes))


def underdetermined(network: Network, k: int) -> bool:
    """Whether factor k has more bonds than there are equations for each of its entries."""
    p = parts(network, k)
    return network.product(p.rest) < network.product(p.bonds)


def arranged(network: Network, k: int, tensor: Array) -> Array:
    """The tensor as a stack of matrices (rest, own)."""
    p, xp = parts(network, k), namespace(tensor)
    order = (*p.shared, *p.rest, *p.own)
    moved = xp.permute_dims(tensor, tuple(network.modes.index(a) for a in order))
    return xp.reshape(moved, tuple(prod(network.extent(group)) for group in (p.shared, p.rest, p.own)))


def solve_stack(grams: Array, rhs: Array) -> Array:
    """The solutions of a stack of Hermitian positive semidefinite systems, singular ones too.

    One system goes to `solve_psd`; many are solved together by their eigenvalues, scaled as there.

    >>> import numpy as np
    >>> solve_stack(np.array([[[2.0]], [[0.0]]]), np.array([[[4.0]], [[1.0]]]))[:, 0, 0]
    array([2., 0.])
    """
    xp = namespace(grams, rhs)
    if grams.shape[0] == 1:
        return solve_psd(grams[0, ...], rhs[0, ...])[None, ...]
    diagonal = xp.linalg.diagonal(grams)
    diagonal = xp.real(diagonal) if is_complex(grams) else diagonal
    positive = diagonal > 0
    scale = xp.where(positive, 1.0 / xp.sqrt(xp.where(positive, diagonal, 1.0)), 1.0)[..., None]
    w, v = xp.linalg.eigh(grams * scale * xp.matrix_transpose(scale))
    kept = w > grams.shape[-1] * epsilon(grams) * xp.max(w, axis=-1, keepdims=True)
    inverse = xp.where(kept, 1.0 / xp.where(kept, w, 1.0), 0.0)[..., None]
    return scale * xp.matmul(v, inverse * xp.matmul(adjoint(v), scale * rhs))


def least_norm(design: Array, rhs: Array) -> Array:
    """The smallest F with B F = T for stacks of wide matrices B: Bᴴ (B Bᴴ)⁺ T."""
    xp, wide = namespace(design), adjoint(design)
    return xp.matmul(wide, solve_stack(xp.matmul(design, wide), rhs))
