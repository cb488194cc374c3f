"""The header of the arrays: second names, orders of storage, and which layers share factors."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from tenfold.checkpoint.joint import Family, as_data
from tenfold.core.errors import CheckpointError
from tenfold.core.network import Axes

ARRAYS_FORMAT, WITH_JOINT = "tenfold-1", "tenfold-2"
"""The format of a file; only one with joint layers has the second, which older versions cannot load."""


class Header(NamedTuple):
    """Second name -> name under which an array is stored; factor -> its axes as stored; joint layers.

    >>> Header.read(Header({"b": "a"}, {"a": ("R", "i")}).metadata(), Path("m.safetensors"))
    Header(aliases={'b': 'a'}, stored={'a': ('R', 'i')}, joint=())
    """

    aliases: Mapping[str, str] = {}
    stored: Mapping[str, Axes] = {}
    joint: tuple[Family, ...] = ()

    def metadata(self) -> dict[str, str]:
        """What is written: safetensors holds texts alone."""
        found = {
            "format": WITH_JOINT if self.joint else ARRAYS_FORMAT,
            "aliases": json.dumps(dict(self.aliases)),
            "stored": json.dumps(dict(self.stored)),
        }
        return found | ({"joint": json.dumps(as_data(self.joint))} if self.joint else {})

    @staticmethod
    def read(metadata: Mapping[str, str], path: Path) -> "Header":
        """Inverse of `metadata`.

        Raises:
            CheckpointError: for what another version wrote, and for what nobody writes.
        """
        if metadata.get("format", ARRAYS_FORMAT) not in (ARRAYS_FORMAT, WITH_JOINT):
            raise CheckpointError(
                f"'{path}' has the format '{metadata['format']}', this tenfold reads {ARRAYS_FORMAT} and "
                f"{WITH_JOINT}.",
                "Update tenfold.",
            )
        return Header(
            _part(metadata, "aliases", path, lambda data: {str(k): str(v) for k, v in data.items()}),
            _part(metadata, "stored", path, lambda data: {k: _axes(axes) for k, axes in data.items()}),
            tuple(_part(metadata, "joint", path, lambda data: [Family.from_dict(one) for one in data])),
        )


def read_header(path: Path) -> Header:
    """The header of a file; raises CheckpointError if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return Header.read(file.metadata() or {}, path)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that safetensors refuses."""
    return CheckpointError(f"'{path}' cannot be read: {error}.", "It may be cut short; write it anew.")


def _axes(names: list[Any]) -> Axes:
    if lost := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"{lost[0]!r} is no axis")
    return tuple(names)


def _part(metadata: Mapping[str, str], name: str, path: Path, made: Callable[[Any], Any]) -> Any:
    try:
        return made(json.loads(metadata.get(name, "[]" if name == "joint" else "{}")))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the header of '{path}' has a damaged part '{name}': {error!r}.", "Write the checkpoint anew."
        ) from error
