"""Options as text, turned into what they mean."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from math import inf

import torch
from torch import Tensor

from tenfold.compress import Metric, Selection, Wanted, metrics, presets
from tenfold.compress.presets import AUTO
from tenfold.core.errors import BudgetError, OptionError
from tenfold.core.registry import Registry
from tenfold.ranks import Budget, RankRule, rules
from tenfold.ranks.budget import UNITS


def budget(text: str) -> Budget:
    """A budget such as "params=0.25", or in two units.

    >>> budget("params=0.25"), budget("params=5_000,flops=0.4"), budget("flops=1e9")
    (Budget(params=0.25), Budget(params=5000, flops=0.4), Budget(flops=1000000000))
    """
    parts = [part.partition("=")[::2] for part in text.split(",")]
    amounts = {unit.strip(): _number(amount) for unit, amount in parts}
    if None in amounts.values() or not amounts.keys() <= set(UNITS) or len(amounts) < len(parts):
        raise BudgetError(
            f"--keep came as '{text}'.",
            f"Give UNIT=AMOUNT of {', '.join(UNITS)}: params=0.25 is a fraction, params=50000 a count. "
            "Two with a comma, as in params=0.25,flops=0.4, both hold.",
        )
    return Budget(**amounts)


def _number(text: str) -> float | int | None:
    """An int for a count, a float for a fraction up to 1.0; None for what is no number."""
    try:
        number = int(text) if text.strip().isdigit() else float(text)
    except ValueError:
        return None
    whole = isinstance(number, float) and number > 1 and number.is_integer()
    return int(number) if whole else number


def in_words(kept: Budget) -> str:
    """A budget for people.

    >>> in_words(Budget(params=0.25)), in_words(Budget(params=5000, flops=0.4))
    ('params ≤ 25 %', 'params ≤ 5,000, flops ≤ 40 %')
    """
    return ", ".join(
        f"{unit} ≤ {f'{amount:,}' if isinstance(amount, int) else f'{100 * amount:g} %'}"
        for unit, amount in kept.amounts.items()
    )


def preset(text: str) -> str | tuple[str, ...]:
    """A preset, "auto", or several with commas.

    >>> preset("tucker2"), preset("channel_svd, tucker2")
    ('tucker2', ('channel_svd', 'tucker2'))
    """
    names = tuple(part.strip() for part in text.split(","))
    return names[0] if len(names) == 1 else names


def listed(text: str | None) -> tuple[str, ...]:
    """Presets one by one: all of them, those with commas, or those that "auto" chooses among.

    >>> listed("tucker2, cp3"), "cp4" in listed(None), "cp4" in listed("auto")
    (('tucker2', 'cp3'), True, False)
    """
    named = [part.strip() for part in text.split(",")] if text else list(presets)
    names = tuple(name for part in named for name in (AUTO if part == "auto" else (part,)))
    for name in names:
        presets[name]
    return tuple(dict.fromkeys(names))


def selection(texts: Sequence[str] | None) -> Selection:
    """Patterns and their presets; "none" leaves a layer dense.

    >>> selection(["conv1=none", "re:layer[0-9].*=cp3"])
    {'conv1': None, 're:layer[0-9].*': 'cp3'}
    """
    chosen: dict[str, Wanted] = {}
    for text in texts or ():
        pattern, found, wanted = text.rpartition("=")
        if not found or not pattern or not wanted:
            raise OptionError(f"--select came as '{text}'.", "Give PATTERN=PRESET, such as conv1=none.")
        chosen[pattern] = None if wanted == "none" else preset(wanted)
    return chosen


def rule(name: str) -> RankRule:
    """A rank rule with its default options.

    >>> rule("uniform")
    Uniform()
    """
    known = _rules()
    if name in rules and name not in known:
        missing = [f.name for f in fields(rules[name]) if f.default is MISSING]  # type: ignore[arg-type]
        raise OptionError(
            f"The rule '{name}' needs {', '.join(missing) or 'options'}, which the command line cannot give.",
            f"Give one of {', '.join(known)}, edit the ranks in a plan made by `tenfold plan`, or use the "
            "rule from Python.",
        )
    return known[name]


def _rules() -> Registry[RankRule]:
    """The rank rules that can be made without options."""
    known: Registry[RankRule] = Registry("rank rule")
    for name in rules:
        with suppress(TypeError, OptionError):
            known.add(name, rules[name]())
    return known


def metric(name: str, refine: int = 0) -> Metric | None:
    """A metric, refined in so many steps if it can be; "none" is the Euclidean one.

    >>> metric("fisher", refine=9), metric("none")
    (Fisher(damping=0.0001), None)
    """
    if name == "none":
        return None
    known = {f.name for f in fields(metrics[name])}  # type: ignore[arg-type]
    return metrics[name](refine=refine) if "refine" in known else metrics[name]()  # type: ignore[call-arg]


def shape(text: str) -> tuple[int, ...]:
    """The shape of an input.

    >>> shape("1,3,32,32")
    (1, 3, 32, 32)
    """
    parts = text.replace("x", ",").split(",")
    if len(parts) < 2 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise OptionError(
            f"--input-shape came as '{text}'.", "Give whole numbers with the batch first, such as 1,3,32,32."
        )
    return tuple(map(int, parts))


def example(text: str) -> Tensor:
    """Zeros of the shape of an input.

    >>> example("1,3,32,32").shape
    torch.Size([1, 3, 32, 32])
    """
    try:
        return torch.zeros(shape(text))
    except (RuntimeError, TypeError, OverflowError) as error:
        raise OptionError(
            f"--input-shape came as '{text}', which is more than the memory holds.",
            "Give the shape of a small batch, such as 1,3,32,32.",
        ) from error


def rate(lr: float) -> float:
    """A learning rate."""
    if not 0 < lr < inf:
        raise OptionError(f"--lr came as {lr:g}.", "Give a number above 0, such as 0.001.")
    return lr


def drop(points: float | None) -> float | None:
    """Points of accuracy that may be lost."""
    if points is not None and not 0 <= points < inf:
        raise OptionError(f"--max-drop came as {points:g}.", "Give points of accuracy from 0, such as 1.")
    return points


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers separated by commas.

    >>> numbers("--mean", "0.5,0.25")
    (0.5, 0.25)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(
            f"{option} came as '{text}'.", "Give one number a channel: 0.49,0.48,0.45."
        ) from error


def device(text: str) -> torch.device:
    """A device that is there."""
    try:
        wanted = torch.device(text)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise OptionError(f"The device '{text}' cannot be used: {first}", "Use --device cpu.") from error
    if wanted.type == "meta":
        raise OptionError("The device 'meta' cannot be used: it holds no numbers.", "Use --device cpu.")
    return wanted
