"""Formats made from a shape and ranks: their networks, and random factors."""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from tenfold.core.arrays import Array, namespace
from tenfold.core.errors import OptionError, RankError
from tenfold.core.network import Axis, Network, identity, mode, shared_bonds, skeleton
from tenfold.core.noise import normal
from tenfold.formats.factored import Factored, chosen
from tenfold.formats.graphs import Ranks, bonds_of, graph_for, ranks_within


class Constructed(Factored):
    """The class methods of a format. Options of its graph, such as a dimension tree, come by name."""

    @classmethod
    def skeleton(cls, shape: Sequence[int], ranks: Ranks, **static: Any) -> Network:
        """The network of this format for a shape and ranks, each rank cut to what its bond can carry."""
        graph = graph_for(cls, len(shape), chosen(cls, static))
        return skeleton(graph, shape, cls.normalised(shape, ranks, **static)).clipped()

    @classmethod
    def normalised(cls, shape: Sequence[int], ranks: Ranks, **static: Any) -> dict[Axis, int]:
        """Ranks as people write them as bond -> size, not yet cut; raises RankError."""
        if isinstance(ranks, Mapping):
            return {b: whole_number(r) for b, r in ranks.items()}
        if isinstance(ranks, float):
            if not 0 < ranks <= 1:
                raise RankError(
                    f"a fraction of the parameters came as {ranks}.", "Give one in (0, 1], or an int."
                )
            return cls.ranks_within(shape, int(ranks * math.prod(shape)), **static)
        bonds = bonds_of(graph_for(cls, len(shape), chosen(cls, static)))
        each = list(ranks) if isinstance(ranks, list | tuple) else [whole_number(ranks)] * len(bonds)
        if len(each) != len(bonds):
            raise RankError(
                f"{cls.__name__} of order {len(shape)} has {len(bonds)} ranks, but {len(each)} came: {each}.",
                f"Give one for each of {', '.join(bonds)}.",
            )
        return {b: whole_number(r) for b, r in zip(bonds, each, strict=True) if r is not None}

    @classmethod
    def full(cls, shape: Sequence[int], whole: Sequence[int] = (), **static: Any) -> Network:
        """The network with every bond as large as it can be; the modes numbered in `whole` stay whole."""
        graph = graph_for(cls, len(shape), chosen(cls, static))
        pairs = [identity(f, shared_bonds(graph)) for f in graph]
        dropped = {p[1] for p in pairs if p and p[0] in {mode(k) for k in whole}}
        return skeleton(graph, shape, {b: 1 for b in bonds_of(graph) if b not in dropped}).full()

    @classmethod
    def ranks_within(
        cls, shape: Sequence[int], numel: int, whole: Sequence[int] = (), **static: Any
    ) -> dict[Axis, int]:
        """The largest uniform fraction of the full ranks that stores at most `numel` elements."""
        return ranks_within(cls.full(shape, whole, **static), numel)

    @classmethod
    def from_network(cls, network: Network, factors: Sequence[Array], **static: Any) -> Self:
        """The format over arrays that come in the order of a network made by `skeleton`."""
        feed = iter(factors)
        graph = graph_for(cls, len(network.modes), chosen(cls, static))
        pairs = [identity(f, shared_bonds(graph)) for f in graph]
        missing = [p is not None and p[1] not in network.size_of for p in pairs]
        return cls.from_factors([None if absent else next(feed) for absent in missing], **static)

    @classmethod
    def random(
        cls,
        shape: Sequence[int],
        ranks: Ranks,
        *,
        like: Array,
        std: float = 1.0,
        generator: Any = None,
        **static: Any,
    ) -> Self:
        """Normal factors such that the entries of the represented tensor have standard deviation `std`.

        An entry is a sum over all bonds of products of independent numbers, one of each factor, so its
        variance is prod(ranks) s^(2n) for n factors of standard deviation s. `like` is an array that says
        library, dtype and device; `generator` is a seed or a generator of that library.
        """
        if std < 0:
            raise OptionError(f"std came as {std}.", "Give 0 or more.")
        network = cls.skeleton(shape, ranks, **static)
        scale = (std**2 / network.product(network.bonds)) ** (0.5 / len(network.factors))
        return cls.from_network(network, list(_draws(network, scale, like, generator)), **static)


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


def _draws(network: Network, scale: float, like: Array, generator: Any) -> Iterator[Array]:
    """Independent normal factors, one stream of numbers for all of them."""
    counts = [math.prod(s) for s in network.shapes]
    stream = normal((sum(counts),), like=like, generator=generator)
    xp = namespace(stream)
    start = 0
    for shape, count in zip(network.shapes, counts, strict=True):
        yield xp.reshape(stream[start : start + count], shape) * scale
        start += count
