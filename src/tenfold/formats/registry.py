"""Formats by name. What is registered is a pytree of PyTorch and of JAX."""

import ast
from collections.abc import Callable, Iterable
from typing import Any

from torch.utils import _pytree as pytree

from tenfold.core.arrays import Array
from tenfold.core.registry import Registry
from tenfold.core.trees import register_jax
from tenfold.formats.base import Format, General

Context = tuple[tuple[bool, ...], tuple[tuple[str, Any], ...]]
"""Which slots hold a factor, and the options of the graph."""


class FormatRegistry(Registry[type[Format]]):
    """Formats by name; what is registered is a pytree."""

    def register(self, name: str) -> Callable[[type[Format]], type[Format]]:  # type: ignore[override]
        """Class decorator; goes above `@dataclass`."""
        add = super().register(name)

        def registered(cls: type[Format]) -> type[Format]:
            register_trees(cls)
            return add(cls)

        return registered


formats = FormatRegistry("format")
"""The registered formats; `formats["tt"]` is a class."""


def register_trees(cls: type[Format]) -> None:
    """Let the trees of PyTorch and JAX see the factors of a format as leaves; modes that are whole have none.

    The options of the graph, and which modes are whole, are the same in every tree of the same structure.
    """

    def unflatten(context: Context, factors: Iterable[Array]) -> Format:
        present, options = context
        feed = iter(factors)
        return cls.from_factors([next(feed) if p else None for p in present], **dict(options))

    register_jax(cls, flatten, unflatten)
    pytree.register_pytree_node(
        cls,
        lambda value: (list(value.factors), flatten(value)[1]),
        lambda factors, context: unflatten(context, factors),
        flatten_with_keys_fn=_with_keys,
        serialized_type_name=f"tenfold.{cls.__name__}",
        to_dumpable_context=repr,
        from_dumpable_context=ast.literal_eval,
    )


def flatten(value: Format) -> tuple[tuple[Array, ...], Context]:
    """The factors, and what is needed to put others in their place."""
    return value.factors, (tuple(s is not None for s in value.slots), tuple(value.static.items()))


def _with_keys(value: Format) -> tuple[list[tuple[pytree.KeyEntry, Array]], Context]:
    factors, context = flatten(value)
    return [(pytree.SequenceKey(k), f) for k, f in enumerate(factors)], context


register_trees(General)
