"""A tensor held as factors; everything that follows from its graph is written here once."""

import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

from array_api_compat import to_device

from tenfold.core.arrays import Array, is_complex, namespace, normal
from tenfold.core.contraction import lower_contraction
from tenfold.core.errors import OptionError, RankError, ShapeError
from tenfold.core.network import Axes, Axis, Network, mode, skeleton
from tenfold.core.program import run
from tenfold.formats.graphs import (
    Ranks,
    bonds_of,
    expanded,
    graph_for,
    graph_of,
    identity,
    modes_of,
    ranks_within,
)


class Format(ABC):
    """Base class of all formats. A concrete one is a frozen dataclass of arrays that says its `axes`.

    Fields are arrays, or tuples of arrays; where a factor is None, its mode is left whole and its bond is the
    mode itself. The fields in order are the factors in the order of `axes`.
    """

    @staticmethod
    @abstractmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """The axes of every factor: modes are `mode(k)`, bonds in capitals. The one method of a format."""

    # The graph -----------------------------------------------------------------------------------------

    @property
    def slots(self) -> tuple[Array | None, ...]:
        """All factors in the order of `axes`, None where a mode is whole."""
        values = [getattr(self, name) for name in array_fields(type(self))]
        return tuple(f for v in values for f in (v if isinstance(v, tuple) else (v,)))

    @property
    def factors(self) -> tuple[Array, ...]:
        """The arrays that are stored."""
        return tuple(f for f in self.slots if f is not None)

    @property
    def graph(self) -> tuple[Axes, ...]:
        """The axes of every slot."""
        return graph_of(type(self), len(self.slots))

    @cached_property
    def network(self) -> Network:
        """The graph with the sizes read off the arrays; raises ShapeError where they disagree."""
        pairs = [(axes, f) for axes, f in zip(self.graph, self.slots, strict=True)]
        whole = {bond: m for m, bond in (self._left_out(axes) for axes, f in pairs if f is None)}
        kept = [(tuple(whole.get(a, a) for a in axes), f) for axes, f in pairs if f is not None]
        sizes: dict[Axis, int] = {}
        for axes, f in kept:
            if len(axes) != f.ndim:
                raise ShapeError(f"{self._name}: the factor over {axes} came with shape {tuple(f.shape)}.")
            for a, n in zip(axes, f.shape, strict=True):
                if sizes.setdefault(a, n) != n:
                    raise ShapeError(
                        f"{self._name}: axis {a} has size {sizes[a]} in one factor and {n} in another."
                    )
        factors = tuple(axes for axes, _ in kept)
        return Network(factors, modes_of(factors), tuple(sizes.items()))

    def _left_out(self, axes: Axes) -> tuple[Axis, Axis]:
        if (pair := identity(axes)) is None:
            raise ShapeError(
                f"{self._name}: the factor over {axes} cannot be None.", "Only mode matrices can."
            )
        return pair

    @property
    def _name(self) -> str:
        return type(self).__name__

    @classmethod
    def from_factors(cls, slots: Sequence[Array | None]) -> Self:
        """The format over these arrays, in the order of `axes`, None where a mode is whole."""
        return cls(**assigned(cls, slots))

    def with_factors(self, slots: Sequence[Array | None]) -> Self:
        """The same graph over other arrays."""
        return replace(self, **assigned(type(self), slots))  # type: ignore[type-var]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the represented tensor."""
        return self.network.shape

    @property
    def ranks(self) -> dict[Axis, int]:
        """Bond -> size."""
        return self.network.ranks

    @property
    def numel(self) -> int:
        """Number of stored elements."""
        return self.network.numel

    @property
    def dtype(self) -> Any:
        """Dtype of the factors."""
        return self.factors[0].dtype

    @property
    def device(self) -> Any:
        """Device of the factors."""
        return getattr(self.factors[0], "device", "cpu")

    # Contractions of the graph -------------------------------------------------------------------------

    def dense(self) -> Array:
        """The represented tensor, contracted in the cheapest order."""
        program = lower_contraction(self.network, self.network.modes)
        return run(program, self.factors, namespace(*self.factors))

    def inner(self, other: "Format") -> Array:
        """Inner product with any format of the same shape, conjugating `self`; neither is made dense.

        For two CP tensors the planner finds the Hadamard product of Gram matrices (Bader & Kolda 2007).
        """
        if self.shape != other.shape:
            raise ShapeError(f"inner product of shapes {self.shape} and {other.shape}.", "Give one shape.")
        theirs = other.network.renamed({b: f"{b}'" for b in other.network.bonds})
        sizes = dict(self.network.sizes) | dict(theirs.sizes)
        both = Network((*self.network.factors, *theirs.factors), (), tuple(sizes.items()))
        xp = namespace(*self.factors, *other.factors)
        mine = tuple(xp.conj(f) if is_complex(f) else f for f in self.factors)
        return run(lower_contraction(both, ()), (*mine, *other.factors), xp)

    def norm(self) -> Array:
        """Frobenius norm; exact to half the digits of the dtype when terms cancel."""
        square = self.inner(self)
        xp = namespace(square)
        real = xp.real(square) if is_complex(square) else square
        return xp.sqrt(xp.where(real > 0, real, xp.zeros_like(real)))

    def mode_dot(self, operand: Array, k: int) -> "Format":
        """Product of mode k with a matrix (new size, size), which keeps the format, or with a vector, which
        removes the mode and gives a general network. A matrix on a mode that several factors carry mixes
        slices, and gives a general network too."""
        xp = namespace(operand, *self.factors)
        if operand.shape[-1] != self.shape[k]:
            raise ShapeError(
                f"mode {k} has size {self.shape[k]}, but the operand has shape {tuple(operand.shape)}.",
                "Its last axis must be as long as the mode.",
            )
        if len(holders := self._holders(k)) > 1:
            return self._joined(operand, k)
        ((at, axis),) = holders.items()
        product = xp.tensordot(self.factors[at], operand, axes=((axis,), (operand.ndim - 1,)))
        if operand.ndim == 2:
            return self._replaced({at: xp.moveaxis(product, -1, axis)})
        return self._without(k, {at: product})

    def __getitem__(self, index: Any) -> "Format":
        """Slices and index arrays keep the format; integers remove their mode and give a general network.

        Every entry acts on its own mode: two index arrays select a grid, not pairs as in NumPy. Boolean masks
        of one mode are index arrays.
        """
        value: Format = self
        for k, item in reversed(list(enumerate(expanded(index, len(self.shape))))):
            if not (isinstance(item, slice) and item == slice(None)):
                value = value._selected(item, k)
        return value

    def _selected(self, item: Any, k: int) -> "Format":
        chosen = {n: self.factors[n][(slice(None),) * axis + (item,)] for n, axis in self._holders(k).items()}
        lost = {self.factors[n].ndim - factor.ndim for n, factor in chosen.items()}
        if isinstance(item, bool) or not lost <= {0, 1}:
            raise ShapeError(
                f"mode {k} cannot be indexed with {item!r}.", "Give an integer, a slice or one axis."
            )
        return self._without(k, chosen) if lost == {1} else self._replaced(chosen)

    def _holders(self, k: int) -> dict[int, int]:
        """The factors that carry mode k, by number, and the axis that it has there."""
        name = self.network.modes[k]
        return {n: f.index(name) for n, f in enumerate(self.network.factors) if name in f}

    def _replaced(self, changed: Mapping[int, Array]) -> "Format":
        """The same graph, some factors in the place of others."""
        arrays = iter([changed.get(n, f) for n, f in enumerate(self.factors)])
        return self.with_factors([None if s is None else next(arrays) for s in self.slots])

    def _without(self, k: int, changed: Mapping[int, Array]) -> "General":
        """The general network that is left when mode k is gone from its factors, which are now `changed`."""
        gone = self.network.modes[k]
        graph = [tuple(a for a in f if a != gone) for f in self.network.factors]
        return _general([changed.get(n, f) for n, f in enumerate(self.factors)], graph)

    def _joined(self, operand: Array, k: int) -> "General":
        """The general network with one more factor on mode k, which becomes a bond."""
        m = self.network.modes[k]
        b = next(name for n in itertools.count() if (name := f"S{n}") not in self.network.bonds)
        graph = [tuple(b if a == m else a for a in f) for f in self.network.factors]
        return _general([*self.factors, operand], [*graph, (m, b) if operand.ndim == 2 else (b,)])

    # Copies --------------------------------------------------------------------------------------------

    def map(self, function: Callable[[Array], Array]) -> Self:
        """The same format with `function` applied to every factor."""
        return self.with_factors([None if s is None else function(s) for s in self.slots])

    def astype(self, dtype: Any) -> Self:
        """The same format in another dtype of its array library."""
        xp = namespace(*self.factors)
        return self.map(lambda f: xp.astype(f, dtype))

    def to(self, device: Any) -> Self:
        """The same format on another device."""
        return self.map(lambda f: to_device(f, device))

    # Made from a shape ---------------------------------------------------------------------------------

    @classmethod
    def skeleton(cls, shape: Sequence[int], ranks: Ranks) -> Network:
        """The network of this format for a shape and ranks, each rank cut to what its bond can carry."""
        return skeleton(graph_for(cls, len(shape)), shape, cls.normalised(shape, ranks)).clipped()

    @classmethod
    def normalised(cls, shape: Sequence[int], ranks: Ranks) -> dict[Axis, int]:
        """Ranks as people write them as bond -> size, not yet cut; raises RankError."""
        if isinstance(ranks, Mapping):
            return {b: whole_number(r) for b, r in ranks.items()}
        if isinstance(ranks, float):
            if not 0 < ranks <= 1:
                raise RankError(
                    f"a fraction of the parameters came as {ranks}.", "Give one in (0, 1], or an int."
                )
            return cls.ranks_within(shape, int(ranks * math.prod(shape)))
        bonds = bonds_of(graph_for(cls, len(shape)))
        each = list(ranks) if isinstance(ranks, list | tuple) else [whole_number(ranks)] * len(bonds)
        if len(each) != len(bonds):
            raise RankError(
                f"{cls.__name__} of order {len(shape)} has {len(bonds)} ranks, but {len(each)} came: {each}.",
                f"Give one for each of {', '.join(bonds)}.",
            )
        return {b: whole_number(r) for b, r in zip(bonds, each, strict=True) if r is not None}

    @classmethod
    def full(cls, shape: Sequence[int], whole: Sequence[int] = ()) -> Network:
        """The network with every bond as large as it can be; the modes numbered in `whole` stay whole."""
        graph = graph_for(cls, len(shape))
        pairs = [identity(f) for f in graph]
        dropped = {p[1] for p in pairs if p and p[0] in {mode(k) for k in whole}}
        return skeleton(graph, shape, {b: 1 for b in bonds_of(graph) if b not in dropped}).full()

    @classmethod
    def ranks_within(cls, shape: Sequence[int], numel: int, whole: Sequence[int] = ()) -> dict[Axis, int]:
        """The largest uniform fraction of the full ranks that stores at most `numel` elements."""
        return ranks_within(cls.full(shape, whole), numel)

    @classmethod
    def from_network(cls, network: Network, factors: Sequence[Array]) -> Self:
        """The format over arrays that come in the order of a network made by `skeleton`."""
        feed = iter(factors)
        graph = graph_for(cls, len(network.modes))
        pairs = [identity(f) for f in graph]
        missing = [p is not None and p[1] not in network.size_of for p in pairs]
        return cls.from_factors([None if absent else next(feed) for absent in missing])

    @classmethod
    def random(
        cls, shape: Sequence[int], ranks: Ranks, *, like: Array, std: float = 1.0, generator: Any = None
    ) -> Self:
        """Normal factors such that the entries of the represented tensor have standard deviation `std`.

        An entry is a sum over all bonds of products of independent numbers, one of each factor, so its
        variance is prod(ranks) s^(2n) for n factors of standard deviation s. `like` is an array that says
        library, dtype and device; `generator` is a seed or a generator of that library.
        """
        if std < 0:
            raise OptionError(f"std came as {std}.", "Give 0 or more.")
        network = cls.skeleton(shape, ranks)
        scale = (std**2 / network.product(network.bonds)) ** (0.5 / len(network.factors))
        return cls.from_network(network, list(_draws(network, scale, like, generator)))


@dataclass(frozen=True, eq=False)
class General(Format):
    """Any network: arrays, and the axes of each, with modes "m0", "m1", ... and bonds in capitals."""

    arrays: tuple[Array, ...]
    joined: tuple[Axes, ...] = field(metadata={"static": True})

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """A general network is not determined by its order."""
        raise ShapeError(f"a general network of order {order} has no graph of its own.", "Give `joined`.")

    @property
    def graph(self) -> tuple[Axes, ...]:
        """The axes of every array."""
        return self.joined


def _general(arrays: Sequence[Array], graph: Sequence[Axes]) -> General:
    """A general network, its modes numbered anew."""
    names = {m: mode(n) for n, m in enumerate(modes_of(graph))}
    return General(tuple(arrays), tuple(tuple(names.get(a, a) for a in axes) for axes in graph))


def whole_number(rank: Any) -> int:
    """A rank as an int; raises RankError for text, booleans and fractions.

    >>> whole_number(2.5)
    Traceback (most recent call last):
    tenfold.core.errors.RankError: a rank came as 2.5.
    Give an int, a tuple of ints, a fraction of the parameters in (0, 1], or bond -> size.
    """
    try:
        if not isinstance(rank, bool):
            return operator.index(rank)
    except TypeError:
        pass
    raise RankError(
        f"a rank came as {rank!r}.",
        "Give an int, a tuple of ints, a fraction of the parameters in (0, 1], or bond -> size.",
    )


def array_fields(cls: type[Format]) -> tuple[str, ...]:
    """The fields that hold arrays."""
    return tuple(f.name for f in fields(cls) if not f.metadata.get("static"))  # type: ignore[arg-type]


def assigned(cls: type[Format], slots: Sequence[Array | None]) -> dict[str, Any]:
    """Arrays dealt out to the fields; the one field that is a tuple takes what the others leave."""
    names = array_fields(cls)
    many = [f.name for f in fields(cls) if f.name in names and "tuple" in str(f.type)]  # type: ignore[arg-type]
    spare = len(slots) - (len(names) - len(many))
    feed = iter(slots)
    return {n: tuple(next(feed) for _ in range(spare)) if n in many else next(feed) for n in names}


def _draws(network: Network, scale: float, like: Array, generator: Any) -> Iterator[Array]:
    """Independent normal factors, one stream of numbers for all of them."""
    counts = [math.prod(s) for s in network.shapes]
    stream = normal((sum(counts),), like=like, generator=generator)
    xp = namespace(stream)
    start = 0
    for shape, count in zip(network.shapes, counts, strict=True):
        yield xp.reshape(stream[start : start + count], shape) * scale
        start += count
