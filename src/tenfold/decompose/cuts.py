"""Cuts of the bonds of Tucker's format: how far, how exactly and in which order."""

from collections.abc import Callable, Iterator
from math import inf

from tenfold.algebra import mode_dot
from tenfold.core.arrays import Array, adjoint
from tenfold.core.network import Network, bond
from tenfold.core.pieces import frobenius, together
from tenfold.decompose.base import Fit, relative
from tenfold.formats import Tucker

Basis = Callable[[Array, int, int, float], tuple[Array, float]]
"""Tensor, mode, largest rank, absolute tolerance -> an orthonormal basis, and the norm that it discards."""


def sequential(tensor: Array, network: Network, tol: float, basis_of: Basis) -> Fit[Tucker]:
    """Each mode in turn is projected on a basis of what the others have left."""
    whole, core = frobenius(tensor), tensor
    share = share_of(tol, whole, network)
    matrices: list[Array | None] = [None] * tensor.ndim
    discarded = []
    for k, r in cheapest_first(tensor.shape, network):
        basis, lost = basis_of(core, k, r, share)
        matrices[k] = basis
        discarded.append(lost)
        core = mode_dot(core, adjoint(basis), k)
    return Fit(Tucker(core, tuple(matrices)), relative(together(*discarded), whole))


def share_of(tol: float, whole: float, network: Network) -> float:
    """What each bond may discard, so that all together discard `tol` of the norm `whole`; above 0 for 0."""
    return tol * (whole or 1.0) / max(1, len(network.bonds)) ** 0.5 if tol > 0 else 0.0


def ranks(network: Network) -> Iterator[tuple[int, int | None]]:
    """Mode and its rank; None where the mode stays whole."""
    return ((k, network.size_of.get(bond(k))) for k in range(len(network.modes)))


def cheapest_first(shape: tuple[int, ...], network: Network) -> list[tuple[int, int]]:
    """The modes that are cut, and their ranks, in the order of the least work.

    A mode of size n costs n + 2 r for each entry, and leaves r / n of the entries to the others: exchanging
    neighbours shows that the smallest (n + 2 r) / (1 - r / n) should come first.
    """
    cut = [(k, r) for k, r in ranks(network) if r is not None]
    work = {k: (shape[k] + 2 * r) / (1 - r / shape[k]) if r < shape[k] else inf for k, r in cut}
    return sorted(cut, key=lambda pair: (work[pair[0]], shape[pair[0]]))
