"""Classes of ours as pytrees of JAX. It is not imported for that: they are made known when it is in use."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

Flatten = Callable[[Any], tuple[tuple[Any, ...], Any]]
Unflatten = Callable[[Any, Iterable[Any]], Any]

_WAITING: list[tuple[type, Flatten, Unflatten]] = []


def register_jax(cls: type, flatten: Flatten, unflatten: Unflatten) -> None:
    """Let the trees of JAX see `cls`: `flatten` makes (leaves, hashable rest), `unflatten(rest, leaves)` the
    value.

    At once if JAX is imported; otherwise when `announce` is called next, as every call with an array of JAX
    does.
    """
    _WAITING.append((cls, flatten, unflatten))
    announce()


def announce() -> None:
    """Register with JAX, if it is imported, all classes that wait for it."""
    jax: Any = sys.modules.get("jax")
    while _WAITING and hasattr(jax, "tree_util"):
        jax.tree_util.register_pytree_node(*_WAITING.pop())
