"""Names for things that text may refer to: formats, methods, rules, presets."""

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tenfold.core.errors import UnknownNameError

T = TypeVar("T")
Entry = TypeVar("Entry")


class Registry(Generic[T]):
    """A table from names to things; `@registry.register("name")` adds one.

    >>> shapes: Registry[type] = Registry("shape")
    >>> @shapes.register("square")
    ... class Square: ...
    >>> shapes["squar"]
    Traceback (most recent call last):
    tenfold.core.errors.UnknownNameError: unknown shape 'squar'; did you mean 'square'?
    Known: square
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that registers a class or function under `name`; a name can be taken once."""

        def registered(entry: Entry) -> Entry:
            self.add(name, entry)  # type: ignore[arg-type]
            return entry

        return registered

    def add(self, name: str, entry: T) -> None:
        """Register `entry` under `name`."""
        if name in self._entries:
            raise UnknownNameError(f"{self.noun} '{name}' is registered already", "Choose another name.")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise UnknownNameError(f"unknown {self.noun} '{name}'{hint}", f"Known: {', '.join(self)}")
        return self._entries[name]

    def name_of(self, entry: object) -> str:
        """The name under which `entry` is registered."""
        for name, known in self._entries.items():
            if known is entry:
                return name
        raise UnknownNameError(f"{entry!r} is not a registered {self.noun}", f"Known: {', '.join(self)}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
