"""Which preset each site gets: exact name > `re:` pattern > type > default."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from tenfold.compress.presets import AUTO, Scheme, presets
from tenfold.compress.sites import Site
from tenfold.core.errors import SelectionError, UnsupportedError
from tenfold.nn import REPLACEMENTS

Wanted = str | Sequence[str] | None
"""The name of a preset, several of which the rank rule chooses one for each site, "auto" for those of `AUTO`,
or None to leave dense."""

Selection = Mapping[str, Wanted]
"""Pattern -> what is wanted there. A pattern is the name of a module or parameter,
"re:" and a regular expression that must match all of one, or the name of a layer type such as "Conv2d"."""


@dataclass(frozen=True)
class Choice:
    """What may be done at a site: schemes to choose from, or the reason why it stays dense."""

    site: Site
    schemes: tuple[Scheme, ...]
    reason: str = ""


def choose(model: nn.Module, sites: Sequence[Site], preset: Wanted, select: Selection | None) -> list[Choice]:
    """A choice for every site.

    A preset that is named for a site must serve it, or one of several must; the default preset leaves the
    sites that it cannot serve dense.

    Raises:
        SelectionError: if a pattern matches no site, or nothing is left to compress.
        UnsupportedError: if a preset that is named for a site cannot serve it.
        UnknownNameError: if there is no such preset.
    """
    select = {} if select is None else select
    for wanted in [preset, *select.values()]:
        for name in named(wanted):
            presets[name]
    for pattern in select:
        _check_matches(pattern, sites)
    choices = [_choice(model, site, preset, select) for site in sites]
    if not any(c.schemes for c in choices):
        reasons = "; ".join(f"{c.site.name}: {c.reason}" for c in choices[:3]) or "the model has no sites"
        raise SelectionError(
            f"nothing is left to compress ({reasons}).", "Choose another preset or selection."
        )
    return choices


def named(wanted: Wanted) -> tuple[str, ...]:
    """The presets that are meant.

    >>> named("tucker2"), named(None), "channel_svd" in named("auto")
    (('tucker2',), (), True)
    """
    if wanted is None:
        return ()
    if isinstance(wanted, str):
        return AUTO if wanted == "auto" else (wanted,)
    return tuple(dict.fromkeys(name for entry in wanted for name in named(entry)))


def _choice(model: nn.Module, site: Site, preset: Wanted, select: Selection) -> Choice:
    explicit = [p for p in sorted(select, key=_precedence) if matches(p, site)]
    names = named(select[explicit[0]] if explicit else preset)
    if not names:
        return Choice(site, (), f"'{explicit[0]}' selects none" if explicit else "no preset is chosen for it")
    if stranger := _stranger(model, site):
        problem = f"its weight is also '{stranger}', which uses it in another way"
        if explicit:
            raise UnsupportedError(
                f"'{site.name}' cannot be compressed: {problem}.", "Untie it, or leave it out."
            )
        return Choice(site, (), problem)
    return _served(model, site, names, must=bool(explicit))


def _served(model: nn.Module, site: Site, names: Sequence[str], must: bool) -> Choice:
    """The schemes of the presets that serve the site, each layout and format once."""
    found: dict[tuple[str, str, bool], Scheme] = {}
    refused: list[UnsupportedError] = []
    for name in names:
        try:
            scheme = presets[name](model.get_submodule(site.module), site.name)
        except UnsupportedError as error:
            refused.append(error)
        else:
            found.setdefault((scheme.preset.format, str(scheme.layout), scheme.preset.pivoted), scheme)
    if not found and must:
        raise refused[0]
    return Choice(site, tuple(found.values()), "" if found else refused[0].problem)


def _precedence(pattern: str) -> int:
    """Names first, then expressions, then types."""
    if pattern.startswith("re:"):
        return 1
    return 2 if pattern in {t.__name__ for t in REPLACEMENTS} else 0


def matches(pattern: str, site: Site) -> bool:
    """Whether a pattern means this site, by any name of its weight."""
    names = names_of(site)
    if pattern.startswith("re:"):
        try:
            return any(re.fullmatch(pattern[3:], name) for name in names)
        except re.error as error:
            raise SelectionError(f"'{pattern}' is no regular expression: {error}.", "Mend it.") from error
    return pattern in names or pattern == site.kind


def names_of(site: Site) -> tuple[str, ...]:
    """The modules and the parameters that the weight is, wherever it stands.

    >>> names_of(Site("a", "weight", "Linear", (2, 2), shared=("b.weight",)))
    ('a', 'b', 'a.weight', 'b.weight')
    """
    places = (site.name, *site.shared)
    owners = (place.rpartition(".") for place in places)
    return (*(module for module, _, parameter in owners if parameter == site.parameter), *places)


def _check_matches(pattern: str, sites: Sequence[Site]) -> None:
    if any(matches(pattern, site) for site in sites):
        return
    names = [name for site in sites for name in names_of(site)]
    near = difflib.get_close_matches(pattern, names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise SelectionError(
        f"'{pattern}' matches no site.", f"{hint}Sites: {', '.join(s.module or s.name for s in sites)}."
    )


def _stranger(model: nn.Module, site: Site) -> str | None:
    """Another place of a tied weight whose module is not of the site's own type."""
    for place in site.shared:
        owner, _, parameter = place.rpartition(".")
        if parameter != site.parameter or type(model.get_submodule(owner)).__name__ != site.kind:
            return place
    return None
