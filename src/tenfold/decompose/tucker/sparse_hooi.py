"""Tucker format of a sparse tensor: bases by subspace iteration, products with all others at once, no dense
tensor but of the size of a basis or core."""

from typing import Any

from jaxtyping import Num

from tenfold.algebra.mode_product import mode_dot
from tenfold.algebra.sparse import SparseUnfolding, sparse_mttkrp, sparse_multi_mode_dot
from tenfold.core.arrays import Array, adjoint, constant, device_of, namespace
from tenfold.core.linalg import leading_left, orthonormalise, rank_for_tolerance
from tenfold.core.network import Network, bond
from tenfold.core.noise import normal
from tenfold.core.sparse import Sparse
from tenfold.decompose.base import Fit, norm, relative
from tenfold.decompose.entries.sparse_residual import sparse_residual
from tenfold.formats import Tucker

OVERSAMPLING = 8
"""Columns of the test matrix beyond the rank."""

POWER = 3
"""Products with the unfolding and back, which bring the basis close to the singular vectors."""


def sparse_hosvd(tensor: Sparse, network: Network, tol: float, generator: Any) -> Fit[Tucker]:
    """Bases of all unfoldings, by ranks or a tolerance, and the core.

    Those that `tol` asks for are found with as many columns as the mode has indices.
    """
    tensor = tensor.coalesced.map(constant)
    whole = norm(tensor.values)
    share = tol * whole / max(1, len(network.bonds)) ** 0.5
    bases = [
        None
        if (rank := network.size_of.get(bond(k))) is None
        else sparse_basis(tensor, k, rank, share, generator)
        for k in range(tensor.ndim)
    ]
    value = projected(tensor, bases)
    return Fit(value, relative(sparse_residual(tensor, value), whole))


def sparse_hooi(tensor: Sparse, network: Network, tol: float, steps: int, generator: Any) -> Fit[Tucker]:
    """Each basis made the best one for the others, in turn.

    Source: Kolda & Sun, ICDM 2008; Kaya & Uçar, ICPP 2016.
    """
    start = sparse_hosvd(tensor, network, 0.0, generator)
    tensor = tensor.coalesced.map(constant)
    whole, value, trace, converged = norm(tensor.values), start.value, [start.error], False
    bases = list(value.matrices)
    while not converged and len(trace) <= steps:
        for k in range(tensor.ndim):
            if (basis := bases[k]) is not None:
                chain = _unfolded(_chain(tensor, bases, k))
                bases[k] = leading_left(chain, min(basis.shape[1], *chain.shape))[0]
        value = projected(tensor, bases)
        kept = norm(value.core)
        trace.append(relative(max(0.0, (whole - kept) * (whole + kept)) ** 0.5, whole))
        converged = trace[-2] - trace[-1] <= tol
    error = relative(sparse_residual(tensor, value), whole)
    return Fit(value, error, len(trace), converged, (*trace[:-1], error))


def sparse_basis(tensor: Sparse, mode: int, rank: int, tolerance: float, generator: Any) -> Num[Array, "i r"]:
    """Leading left singular vectors of an unfolding, at most `rank`.

    A random Khatri–Rao product is multiplied by the unfolding, which is a sparse MTTKRP; power iterations
    and a singular value decomposition of the short side follow, as in Halko, Martinsson & Tropp 2011,
    arXiv:0909.4061, whose test matrix is normal.
    """
    width = min(rank + OVERSAMPLING, tensor.shape[mode])
    unfolding = SparseUnfolding(tensor, mode)
    if tensor.nnz == 0:
        return _leading_units(tensor, mode, rank)
    test = [normal((n, width), like=tensor.values, generator=generator) for n in tensor.shape]
    basis, _ = orthonormalise(sparse_mttkrp(tensor, test, mode))
    for _ in range(POWER):
        dual, _ = orthonormalise(unfolding.adjoint_dot(basis))
        basis, _ = orthonormalise(unfolding.dot(dual))
    xp = namespace(basis)
    short = adjoint(unfolding.adjoint_dot(basis))
    u, s, _ = xp.linalg.svd(short, full_matrices=False)
    if tolerance > 0:
        rank = min(rank, rank_for_tolerance(s, tolerance))
    return _filled(basis @ u[:, :rank], rank, tensor, generator)


def _filled(basis: Num[Array, "i k"], rank: int, tensor: Sparse, generator: Any) -> Num[Array, "i r"]:
    """Random orthonormal columns beyond the rank of the unfolding."""
    missing = rank - basis.shape[1]
    if missing <= 0:
        return basis
    xp = namespace(basis)
    noise = normal((basis.shape[0], missing), like=basis, generator=generator)
    return orthonormalise(xp.concat([basis, noise - basis @ (adjoint(basis) @ noise)], axis=1))[0]


def _leading_units(tensor: Sparse, mode: int, rank: int) -> Array:
    values = tensor.values
    return namespace(values).eye(tensor.shape[mode], rank, dtype=values.dtype, device=device_of(values))


def projected(tensor: Sparse, bases: list[Array | None]) -> Tucker:
    """The core for orthonormal bases: the tensor times all their adjoints."""
    k = max(range(tensor.ndim), key=lambda n: tensor.shape[n])
    chain, basis = _chain(tensor, bases, k), bases[k]
    xp = namespace(chain)
    core = xp.moveaxis(chain, 0, k)
    return Tucker(core if basis is None else mode_dot(core, adjoint(basis), k), tuple(bases))


def _chain(tensor: Sparse, bases: list[Array | None], mode: int) -> Array:
    """The tensor times the adjoints of all bases but one, that mode first; a mode without one stays whole."""
    xp, values = namespace(tensor.values), tensor.values
    whole = [
        xp.eye(n, dtype=values.dtype, device=device_of(values)) if b is None else b
        for n, b in zip(tensor.shape, bases, strict=True)
    ]
    return sparse_multi_mode_dot(tensor, whole, mode, adjoint=True)


def _unfolded(chain: Array) -> Array:
    return namespace(chain).reshape(chain, (chain.shape[0], -1))
