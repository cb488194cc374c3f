"""Tensor ring by truncated SVDs: one bond is split in two, which closes the ring."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from tenfold.core.arrays import Array, adjoint, device_of, is_traced, namespace
from tenfold.core.leading import leading
from tenfold.core.network import Network, bond
from tenfold.core.pieces import frobenius, together
from tenfold.decompose.base import Fit, Method, check_tolerance, methods, relative
from tenfold.decompose.residual import residual
from tenfold.decompose.trains.ends import cut_train
from tenfold.formats import Ranks, TensorRing, TensorTrain


@methods.register("tr_svd")
@dataclass(frozen=True)
class TRSVD(Method[TensorRing]):
    """The first unfolding's rank is split into two bonds, then one SVD for each other bond.

    X ≈ U (Uᴴ X) for the mode where the ring starts; the columns of U get two indices (a, b), its bonds to the
    left and the right. Uᴴ X with a moved behind the last mode is a tensor of modes (b n₂), n₃, …, (n_N a),
    which is cut as a train. The squared error is the sum of what the SVDs discard, so a tolerance is kept.

    A rank is split as evenly as its divisors allow, and not at all where that is closer (or, for a tolerance,
    smaller): then the ring is a train. With `search`, every mode is tried as the first and every split of its
    rank, at several times the cost, and the best is kept: the smallest error for given ranks, the fewest
    elements for a tolerance. Under `jax.jit` there is the even split alone.

    It does not find the smallest ranks, nor the best ring of given ranks, not even where a tensor has these
    ranks exactly: which singular vector gets which pair (a, b) is arbitrary, the ranks of all other bonds
    depend on it, and no SVD finds the mixture of the vectors that makes them small. Hence `exact` is False.
    Use it for a tolerance, or as the start of an alternating method, which reduces the error.

    Cost for a tensor of N entries and modes of size n: O(n N) for the first cut, little for the others if
    its rank is small. Memory: the tensor after its first cut.

    Source: Zhao, Zhou, Xie, Zhang & Cichocki 2016, algorithm 1, arXiv:1606.05535; the search: Mickelin &
    Karaman, Numer. Linear Algebra Appl. 27(3), 2020, arXiv:1807.02513.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((4, 5, 6))
    >>> fit = TRSVD(tol=0.3)(x)
    >>> fit.error <= 0.3, fit.value.shape
    (True, (4, 5, 6))
    """

    format: ClassVar = TensorRing
    tolerant: ClassVar = True
    exact: ClassVar = False
    tol: float = 0.0
    search: bool = False

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[TensorRing]:
        starts = range(tensor.ndim) if self.search else (0,)
        found = [fit for start in starts for fit in self._from(tensor, network, start)]
        return min(found, key=self._cost)

    def _network(self, shape: Sequence[int], ranks: Ranks | None) -> Network:
        """Without ranks, bonds have no bound: after an even split, others may need more than a train does."""
        network = super()._network(shape, ranks)
        return network if ranks is not None else network.with_ranks(dict.fromkeys(network.bonds, prod(shape)))

    def _cost(self, fit: Fit[TensorRing]) -> tuple[bool, float]:
        """What is to be smallest: the storage among the fits within the tolerance, the error among others."""
        within = self.tol > 0 and fit.error <= self.tol * (1 + 1e-12)
        return not within, fit.value.numel if within else fit.error

    def _from(self, tensor: Array, network: Network, start: int) -> Iterator[Fit[TensorRing]]:
        """The rings whose first cut is at mode `start`, one for each split of its rank."""
        xp, order, whole = namespace(tensor), tensor.ndim, frobenius(tensor)
        turned = xp.permute_dims(tensor, tuple((start + k) % order for k in range(order)))
        matrix = xp.reshape(turned, (turned.shape[0], -1))
        ranks = [network.size_of[bond((start + k) % order)] for k in range(order)]
        budget = self.tol * whole if self.tol > 0 else 0.0
        room = min(ranks[0] * ranks[1], *matrix.shape)
        basis, lost = leading(matrix, 0, room, budget * (2 / order) ** 0.5)
        rest = xp.reshape(adjoint(basis) @ matrix, (-1, *turned.shape[1:]))
        left = max(0.0, budget**2 - lost**2) ** 0.5 if self.tol > 0 else 0.0
        pairs = splits(basis.shape[1], ranks[0], ranks[1], every=self.search)
        for a, b in pairs[:1] if is_traced(tensor) else pairs:
            cores, discarded = _closed(basis, rest, a, b, ranks[2:], left)
            value = TensorRing(tuple(cores[(k - start) % order] for k in range(order)))
            exact = a * b == basis.shape[1]
            error = together(lost, discarded) if exact else residual(tensor, value)
            yield Fit(value, relative(error, whole))


def splits(rank: int, most_a: int, most_b: int, every: bool = False) -> list[tuple[int, int]]:
    """Pairs of bonds (a, b), each as small as it can be beside the other, with rank <= a b.

    The most even one of the smallest products, and a pair with a 1 where the bonds allow it; or `every` one.

    >>> splits(6, 9, 9), splits(6, 2, 4), splits(7, 3, 3)
    ([(2, 3), (1, 6)], [(2, 3)], [(3, 3)])
    """
    pairs = [(a, -(-rank // a)) for a in range(1, min(rank, most_a) + 1) if a * most_b >= rank]
    if every:
        return pairs
    even = min(pairs, key=lambda p: (p[0] * p[1], abs(p[0] - p[1])))
    return list(dict.fromkeys([even, *(p for p in pairs if 1 in p)][:2]))


def _closed(
    basis: Array, rest: Array, a: int, b: int, ranks: list[int], tolerance: float
) -> tuple[list[Array], float]:
    """The cores from the first one on, and what is discarded, when the columns of the basis are pairs (a, b).

    Where a b is more than the columns, zero columns are added; what the train has there does not count, so
    that the error is less than what is discarded.
    """
    xp, shape = namespace(rest), tuple(rest.shape[1:])
    basis, rest = _padded(basis, 1, a * b), _padded(rest, 0, a * b)
    first = xp.permute_dims(xp.reshape(basis, (-1, a, b)), (1, 0, 2))
    rest = xp.moveaxis(xp.reshape(rest, (a, b, *shape)), 0, -1)
    if len(shape) == 1:
        return [first, rest], 0.0
    joined = xp.reshape(rest, (b * shape[0], *shape[1:-1], shape[-1] * a))
    network = TensorTrain.skeleton(joined.shape, tuple(ranks))
    tol = relative(tolerance, frobenius(joined)) if tolerance > 0 else 0.0
    fit = cut_train(joined, network, tol, leading)
    head, *middle, tail = fit.value.cores
    head = xp.reshape(head, (b, shape[0], -1))
    tail = xp.reshape(tail, (-1, shape[-1], a))
    return [first, head, *middle, tail], fit.error * frobenius(joined)


def _padded(array: Array, axis: int, size: int) -> Array:
    """Zeros behind the entries along an axis."""
    xp, shape = namespace(array), list(array.shape)
    shape[axis] = size - shape[axis]
    if shape[axis] == 0:
        return array
    return xp.concat([array, xp.zeros(tuple(shape), dtype=array.dtype, device=device_of(array))], axis=axis)
