"""Fibres of a dense or sparse tensor, and single entries, by number."""

from abc import ABC, abstractmethod
from functools import cached_property
from math import prod
from typing import Any

from jaxtyping import Float, Int, Num

from tenfold.core.arrays import Array, cast, conjugate, device_of, is_complex, namespace
from tenfold.core.segments import Segments
from tenfold.core.sparse import Sparse
from tenfold.decompose.cp.leverage_scores import Sample, uniform


class Fibres(ABC):
    """A tensor of which some fibres are looked at. Fibres of a mode are numbered over the other modes, the
    last one fastest."""

    shape: tuple[int, ...]
    like: Array

    @abstractmethod
    def projected(self, mode: int, numbers: Int[Array, " s"], basis: Num[Array, "s r"]) -> Num[Array, "i r"]:
        """Σ_s x_s conj(basis[s])ᵀ over the fibres x_s of these numbers."""

    @abstractmethod
    def some_entries(self, count: int, generator: Any) -> tuple[list[Array], Array, Array]:
        """Random entries: their indices, values and what each counts, in total the number of entries."""

    def others(self, mode: int) -> list[int]:
        """All modes but one."""
        return [k for k in range(len(self.shape)) if k != mode]


class DenseFibres(Fibres):
    """Of a dense tensor: gathered where they are."""

    def __init__(self, tensor: Num[Array, "*shape"]) -> None:
        self.tensor, self.shape = tensor, tuple(tensor.shape)
        self.flat = self.like = namespace(tensor).reshape(tensor, (-1,))

    def projected(self, mode: int, numbers: Int[Array, " s"], basis: Num[Array, "s r"]) -> Num[Array, "i r"]:
        """By one matrix product with the fibres."""
        xp, size = namespace(basis), self.shape[mode]
        stride = prod(self.shape[mode + 1 :])
        first = numbers // stride * (stride * size) + numbers % stride
        steps = stride * xp.arange(size, dtype=numbers.dtype, device=device_of(numbers))
        at = xp.reshape(steps[:, None] + first[None, :], (-1,))
        return xp.reshape(xp.take(self.flat, at), (size, -1)) @ conjugate(basis)

    def some_entries(self, count: int, generator: Any) -> tuple[list[Array], Array, Array]:
        """All of them if there are no more than `count`, otherwise uniformly drawn ones."""
        xp, total = namespace(self.flat), prod(self.shape)
        if total <= count:
            at = xp.arange(total, device=device_of(self.flat))
        else:
            draws = uniform(
                count,
                like=self.flat if not is_complex(self.flat) else xp.real(self.flat),
                generator=generator,
            )
            at = xp.clip(cast(xp.floor(draws * total), xp.asarray(0).dtype), 0, total - 1)
        weight = xp.ones_like(xp.abs(xp.take(self.flat, at))) * (total / at.shape[0])
        return indices_of(at, self.shape), xp.take(self.flat, at), weight


class SparseFibres(Fibres):
    """Of a sparse tensor: its entries are sorted by fibre once for each mode."""

    def __init__(self, tensor: Sparse) -> None:
        self.tensor, self.shape, self.like = tensor, tensor.shape, tensor.values

    @cached_property
    def _sorted(self) -> dict[int, tuple[Array, Array]]:
        return {}

    def sorted_fibres(self, mode: int) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
        """The order of the entries by fibre, and the number of the fibre of each, sorted."""
        if mode not in self._sorted:
            keys = self.tensor.keys(self.others(mode))
            order = namespace(keys).argsort(keys, stable=True)
            self._sorted[mode] = order, namespace(keys).take(keys, order)
        return self._sorted[mode]

    def projected(self, mode: int, numbers: Int[Array, " s"], basis: Num[Array, "s r"]) -> Num[Array, "i r"]:
        """By the entries that lie in the fibres, found by bisection."""
        xp = namespace(basis)
        order, keys = self.sorted_fibres(mode)
        start, stop = xp.searchsorted(keys, numbers), xp.searchsorted(keys, numbers, side="right")
        found = stop - start
        which = xp.repeat(xp.arange(numbers.shape[0], device=device_of(numbers)), found)
        before = xp.cumulative_sum(found) - found
        step = xp.arange(which.shape[0], device=device_of(numbers)) - xp.take(before, which)
        entry = xp.take(order, xp.take(start, which) + step)
        rows = xp.take(self.tensor.columns[mode], entry)
        conjugated = conjugate(basis)
        terms = xp.take(self.tensor.values, entry)[:, None] * xp.take(conjugated, which, axis=0)
        return Segments.of(rows, self.shape[mode]).sum(terms)

    def some_entries(self, count: int, generator: Any) -> tuple[list[Array], Array, Array]:
        """Half of them from those that are listed, half from the zeros: two strata.

        Source: Kolda & Hong, SIAM J. Math. Data Sci. 2(4), 2020, arXiv:1906.01687, for the strata.
        """
        xp, tensor, total = namespace(self.like), self.tensor, prod(self.shape)
        listed, values, weight = self._listed(count // 2, generator)
        columns, zeros = self._zeros(max(1, count - count // 2), generator)
        if zeros.shape[0] == 0:
            return listed, values, weight
        share = (total - tensor.nnz) / zeros.shape[0]
        joined = [xp.concat([a, cast(b, a.dtype)]) for a, b in zip(listed, columns, strict=True)]
        none = xp.zeros((zeros.shape[0],), dtype=values.dtype, device=device_of(values))
        weights = xp.concat([weight, xp.ones_like(xp.abs(none)) * share])
        return joined, xp.concat([values, none]), weights

    def _listed(self, count: int, generator: Any) -> tuple[list[Array], Array, Array]:
        xp, nnz = namespace(self.like), self.tensor.nnz
        real = xp.abs(self.like[:1])
        if nnz <= count:
            at = xp.arange(nnz, device=device_of(self.like))
        else:
            at = cast(xp.floor(uniform(count, like=real, generator=generator) * nnz), xp.asarray(0).dtype)
            at = xp.clip(at, 0, nnz - 1)
        values = xp.take(self.like, at)
        share = nnz / max(1, at.shape[0])
        return [xp.take(c, at) for c in self.tensor.columns], values, xp.ones_like(xp.abs(values)) * share

    def _zeros(self, count: int, generator: Any) -> tuple[list[Array], Array]:
        """Entries that are not listed: all if they are few, otherwise random ones."""
        xp, total = namespace(self.like), prod(self.shape)
        modes = range(len(self.shape))
        if total <= count:
            at = xp.arange(total, device=device_of(self.like))
            columns = indices_of(at, self.shape)
        else:
            real = xp.abs(self.like[:1])
            integer = xp.asarray(0).dtype
            draws = [uniform(count, like=real, generator=generator) * n for n in self.shape]
            columns = [
                xp.clip(cast(xp.floor(d), integer), 0, n - 1) for d, n in zip(draws, self.shape, strict=True)
            ]
        keys = xp.sort(self.tensor.keys(modes))
        number = Sparse(xp.stack(columns, axis=1), columns[0] * 0.0, self.shape).keys(modes)
        low, high = xp.searchsorted(keys, number), xp.searchsorted(keys, number, side="right")
        kept = xp.nonzero(low == high)[0]
        return [xp.take(c, kept) for c in columns], kept


def indices_of(numbers: Int[Array, " k"], shape: tuple[int, ...]) -> list[Int[Array, " k"]]:
    """The index of every mode of entries that are numbered in row-major order."""
    found = []
    for size in reversed(shape):
        found.append(numbers % size)
        numbers = numbers // size
    return found[::-1]


def fibres_of(tensor: Array | Sparse) -> Fibres:
    """The fibres of a dense or sparse tensor."""
    return SparseFibres(tensor.coalesced) if isinstance(tensor, Sparse) else DenseFibres(tensor)


def estimated_square(entries: tuple[list[Array], Array, Array], factors: list[Array]) -> Float[Array, ""]:
    """‖X - M‖² as far as the entries tell."""
    columns, values, weights = entries
    xp = namespace(values)
    chosen = [xp.take(f, c, axis=0) for f, c in zip(factors, columns, strict=True)]
    model = xp.sum(prod(chosen[1:], start=chosen[0]), axis=1)
    return xp.sum(weights * xp.abs(values - model) ** 2)


def sampled_solution(fibres: Fibres, factors: list[Array], mode: int, sample: Sample) -> Num[Array, "i r"]:
    """The factor of a mode from the sampled rows of its least-squares problem, by QR and the pseudo-inverse.

    min Σ_s w_s ‖x_s - A z_s‖² over the rows z_s of the Khatri–Rao product and the fibres x_s.
    """
    xp = namespace(*factors)
    root = cast(xp.sqrt(sample.weights), factors[0].dtype)[:, None]
    q, r = xp.linalg.qr(root * sample.product([factors[k] for k in fibres.others(mode)]))
    return fibres.projected(mode, sample.numbers, q * root) @ xp.linalg.pinv(r).T
