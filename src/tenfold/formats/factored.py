"""Arrays on a static graph of named axes: what a format stores, before anything is calculated with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
import torch
from array_api_compat import to_device

from tenfold.core.arrays import Array, namespace
from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.network import Axes, Axis, Network, identity, shared_bonds
from tenfold.core.trees import announce
from tenfold.formats.graphs import graph_of, modes_of


class Factored(ABC):
    """Fields are arrays, or tuples of arrays; where a factor is None, its mode is left whole and its bond is
    the mode itself. The fields in order are the factors in the order of `axes`; static fields are options of
    the graph."""

    def __post_init__(self) -> None:
        if not all(f is None or isinstance(f, np.ndarray | torch.Tensor) for f in self.slots):
            announce()

    @staticmethod
    @abstractmethod
    def axes(order: int, *args: Any, **static: Any) -> tuple[Axes, ...]:
        """The axes of every factor: modes are `mode(k)`, bonds in capitals. The one method of a format.

        Formats whose graph has options take them by name, and keep them in fields with the metadata
        `{"static": True}`.
        """

    @classmethod
    def lengths(cls, count: int, **static: Any) -> Mapping[str, int]:
        """How many of `count` factors each field takes that is a tuple.

        Only a format with several such fields says it by itself: a single one takes what the others leave.
        """
        names = tuple_fields(cls)
        return dict.fromkeys(names, count - (len(array_fields(cls)) - len(names)))

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
    def static(self) -> dict[str, Any]:
        """The options of the graph, such as a dimension tree."""
        return {name: getattr(self, name) for name in static_fields(type(self))}

    @property
    def graph(self) -> tuple[Axes, ...]:
        """The axes of every slot."""
        ndims = tuple(None if s is None else s.ndim for s in self.slots)
        return graph_of(type(self), ndims, tuple(self.static.items()))

    @cached_property
    def network(self) -> Network:
        """The graph with the sizes read off the arrays; raises ShapeError where they disagree."""
        pairs = list(zip(self.graph, self.slots, strict=True))
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
        if (pair := identity(axes, shared_bonds(self.graph))) is None:
            raise ShapeError(
                f"{self._name}: the factor over {axes} cannot be None.", "Only mode matrices can."
            )
        return pair

    @property
    def _name(self) -> str:
        return type(self).__name__

    @classmethod
    def from_factors(cls, slots: Sequence[Array | None], **static: Any) -> Self:
        """The format over these arrays, in the order of `axes`, None where a mode is whole."""
        options = chosen(cls, static)
        return cls(**assigned(cls, slots, options), **options)

    def with_factors(self, slots: Sequence[Array | None]) -> Self:
        """The same graph over other arrays."""
        return replace(self, **assigned(type(self), slots, self.static))  # type: ignore[type-var]

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

    def _replaced(self, changed: Mapping[int, Array]) -> Self:
        """The same graph, some of the stored factors in the place of others."""
        arrays = iter([changed.get(n, f) for n, f in enumerate(self.factors)])
        return self.with_factors([None if s is None else next(arrays) for s in self.slots])


@lru_cache
def array_fields(cls: type[Factored]) -> tuple[str, ...]:
    """The fields that hold arrays."""
    return tuple(f.name for f in fields(cls) if not f.metadata.get("static"))  # type: ignore[arg-type]


@lru_cache
def static_fields(cls: type[Factored]) -> tuple[str, ...]:
    """The fields that hold options of the graph."""
    return tuple(f.name for f in fields(cls) if f.metadata.get("static"))  # type: ignore[arg-type]


@lru_cache
def tuple_fields(cls: type[Factored]) -> tuple[str, ...]:
    """The fields that hold tuples of arrays."""
    names = array_fields(cls)
    return tuple(f.name for f in fields(cls) if f.name in names and "tuple" in str(f.type))  # type: ignore[arg-type]


def chosen(cls: type[Factored], static: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a graph, lists in them as tuples.

    Raises:
        OptionError: for an option that the format has not got.
    """
    known = static_fields(cls)
    if unknown := [name for name in static if name not in known]:
        raise OptionError(
            f"{cls.__name__} has no option '{unknown[0]}'.",
            f"Its options: {', '.join(known)}." if known else "It has none.",
        )
    return {name: frozen(value) for name, value in static.items()}


def frozen(value: Any) -> Any:
    """Lists, at any depth, as tuples."""
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def assigned(
    cls: type[Factored], slots: Sequence[Array | None], static: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Arrays dealt out to the fields in their order."""
    lengths = cls.lengths(len(slots), **(static or {}))
    counts = [lengths.get(name, 1) for name in array_fields(cls)]
    if min(counts) < 0 or sum(counts) != len(slots):
        raise ShapeError(f"{cls.__name__} cannot have {len(slots)} factors.", "Check the number of factors.")
    feed = iter(slots)
    return {
        name: tuple(next(feed) for _ in range(lengths[name])) if name in lengths else next(feed)
        for name in array_fields(cls)
    }
