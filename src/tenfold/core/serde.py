"""Frozen dataclasses of options as JSON: the registered name, and the options that are not the default."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar

from tenfold.core.errors import OptionError
from tenfold.core.registry import Registry

T = TypeVar("T")


def to_dict(registry: Registry[Any], options: Any) -> dict[str, Any]:
    """{"name": ..., option: value, ...}; options at their default are left out.

    >>> from tenfold.decompose import HOOI, methods
    >>> to_dict(methods, HOOI(max_steps=9))
    {'name': 'hooi', 'max_steps': 9}
    """
    values = asdict(options)
    default = {f.name: f.default for f in fields(options) if f.default is not MISSING}
    changed = {k: v for k, v in values.items() if k not in default or default[k] != v}
    return {"name": registry.name_of(type(options)), **changed}


def from_dict(registry: Registry[Any], data: Mapping[str, Any]) -> Any:
    """The options that `to_dict` wrote; only registered names are made, and unknown options are refused.

    >>> from tenfold.decompose import methods
    >>> from_dict(methods, {"name": "hooi", "max_steps": 9})
    HOOI(tol=1e-05, max_steps=9, restarts=0)
    """
    options = dict(data)
    name = options.pop("name", None)
    cls = registry[str(name)]
    known = [f.name for f in fields(cls)]
    if unknown := sorted(set(options) - set(known)):
        raise OptionError(f"{registry.noun} '{name}' has no option {unknown}.", f"Known: {', '.join(known)}.")
    return cls(**options)
