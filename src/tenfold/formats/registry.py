"""Formats by name. What is registered is a pytree of PyTorch."""

import ast
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from torch.utils import _pytree as pytree

from tenfold.core.arrays import Array
from tenfold.core.registry import Registry
from tenfold.formats.base import Format, General, assigned

Context = tuple[tuple[bool, ...], tuple[tuple[str, Any], ...]]
"""Which slots hold a factor, and the static fields."""


class FormatRegistry(Registry[type[Format]]):
    """Formats by name; what is registered is a pytree of PyTorch."""

    def register(self, name: str) -> Callable[[type[Format]], type[Format]]:  # type: ignore[override]
        """Class decorator; goes above `@dataclass`."""
        add = super().register(name)

        def registered(cls: type[Format]) -> type[Format]:
            register_pytree(cls)
            return add(cls)

        return registered


formats = FormatRegistry("format")
"""The registered formats; `formats["tt"]` is a class."""


def register_pytree(cls: type[Format]) -> None:
    """Let PyTorch's trees see the factors of a format as leaves; modes that are whole have no leaf."""

    def flatten(value: Format) -> tuple[list[Array], Context]:
        return list(value.factors), (tuple(s is not None for s in value.slots), static(value))

    def with_keys(value: Format) -> tuple[list[tuple[pytree.KeyEntry, Array]], Context]:
        factors, context = flatten(value)
        return [(pytree.SequenceKey(k), f) for k, f in enumerate(factors)], context

    def unflatten(factors: Iterable[Array], context: Context) -> Format:
        present, options = context
        feed = iter(factors)
        return cls(**assigned(cls, [next(feed) if p else None for p in present]), **dict(options))

    pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        flatten_with_keys_fn=with_keys,
        serialized_type_name=f"tenfold.{cls.__name__}",
        to_dumpable_context=repr,
        from_dumpable_context=ast.literal_eval,
    )


def static(value: Format) -> tuple[tuple[str, Any], ...]:
    """The fields that hold no arrays, with their names."""
    names = [f.name for f in fields(value) if f.metadata.get("static")]  # type: ignore[arg-type]
    return tuple((name, getattr(value, name)) for name in names)


register_pytree(General)
