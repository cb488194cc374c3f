"""Cores of a tensor train split off at both ends of a tensor."""

from collections.abc import Sequence

from tenfold.core.arrays import Array, adjoint, conjugate, device_of, namespace
from tenfold.core.network import Network, bond
from tenfold.core.pieces import frobenius, together
from tenfold.decompose.base import Fit, relative
from tenfold.decompose.cuts import Basis, share_of
from tenfold.formats import TensorTrain


def cut_train(tensor: Array, network: Network, tol: float, basis_of: Basis) -> Fit[TensorTrain]:
    """Cores are split off at both ends until one is left."""
    whole = frobenius(tensor)
    share = share_of(tol, whole, network)
    heads, rest, tails, discarded = cut_ends(tensor, [], [], network, share, basis_of)
    return Fit(train_of(tensor.shape, heads, rest, tails[::-1]), relative(together(*discarded, 0.0), whole))


def cut_ends(
    rest: Array, heads: list[Array], tails: list[Array], network: Network, share: float, basis_of: Basis
) -> tuple[list[Array], Array, list[Array], list[float]]:
    """Go on from the cores that both ends have given so far: all cores of the left end, the last that is
    left, those of the right end from the last mode on, and what the cuts discard."""
    shape, discarded = network.shape, []
    while len(heads) + len(tails) < len(shape) - 1:
        left, right = len(heads), len(shape) - 1 - len(tails)
        rows = (heads[-1].shape[1] if heads else 1) * shape[left]
        columns = shape[right] * (tails[-1].shape[0] if tails else 1)
        xp = namespace(rest)
        if rows <= columns:
            rank, matrix = network.size_of[bond(left + 1)], xp.reshape(rest, (rows, -1))
            core, rest, lost = head(matrix, rank, share, basis_of)
            heads = [*heads, core]
        else:
            rank, matrix = network.size_of[bond(right)], xp.reshape(rest, (-1, columns))
            core, rest, lost = tail(matrix, rank, share, basis_of)
            tails = [*tails, core]
        discarded.append(lost)
    return heads, rest, tails, discarded


def train_of(
    shape: Sequence[int], heads: Sequence[Array], middle: Array, tails: Sequence[Array]
) -> TensorTrain:
    """The train of matrices (rows, bond) at its left, (bond, columns) at its right, and what is between."""
    xp = namespace(middle)
    bonds = [h.shape[1] for h in heads] + [t.shape[0] for t in tails]
    shapes = [(*bonds[max(0, k - 1) : k], n, *bonds[k : k + 1]) for k, n in enumerate(shape)]
    return TensorTrain(tuple(map(xp.reshape, (*heads, middle, *tails), shapes)))


def head(matrix: Array, rank: int, tolerance: float, basis_of: Basis) -> tuple[Array, Array, float]:
    """matrix ≈ U (Uᴴ matrix): U, the rest, and the norm of the difference."""
    if rank >= matrix.shape[0] and tolerance <= 0:
        return identity(matrix.shape[0], matrix), matrix, 0.0
    basis, lost = basis_of(matrix, 0, rank, tolerance)
    return basis, adjoint(basis) @ matrix, lost


def tail(matrix: Array, rank: int, tolerance: float, basis_of: Basis) -> tuple[Array, Array, float]:
    """matrix ≈ (matrix conj(W)) Wᵀ: Wᵀ, the rest, and the norm of the difference."""
    if rank >= matrix.shape[1] and tolerance <= 0:
        return identity(matrix.shape[1], matrix), matrix, 0.0
    basis, lost = basis_of(matrix, 1, rank, tolerance)
    dual = conjugate(basis)
    return basis.T, matrix @ dual, lost


def identity(n: int, like: Array) -> Array:
    """The basis of a bond that is not cut."""
    return namespace(like).eye(n, dtype=like.dtype, device=device_of(like))
