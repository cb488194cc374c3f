"""What can be done with a tensor held as factors, by name: so that it can be noted first and done later.

`torch.compile` cannot look on while factors are indexed and contractions are planned. It sees only that a
view is noted (`Noted`), and one call that does all that was noted (`carried_out`), which stands in its graph.
"""

import operator
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tenfold.core.errors import OptionError, TenfoldError
from tenfold.core.layout import Layout, rearrange
from tenfold.core.network import Network, distinct
from tenfold.core.program import Stored
from tenfold.formats import Format, General, formats
from tenfold.nn.tensor import arithmetic, products
from tenfold.nn.tensor.seen import Seen
from tenfold.nn.tensor.slicing import indexed

Outcome = Seen | Tensor | None
"""A tensor held as factors, a plain one, or None where factors do not serve."""
Recipe = tuple[Any, ...]
"""(name of an act, options, the recipes of what it acts on); ITEM is an operand as it comes. Plain data,
which `torch.compile` takes as constants."""
ITEM: Recipe = ("item", (), ())


ARRAY = "array"
"""In the place of a tensor in an index, which comes as an operand."""


def _indexed(x: Seen, *arrays_and_entries: Any) -> Outcome:
    *arrays, entries = arrays_and_entries
    feed = iter(arrays)
    found = indexed(x, tuple(next(feed) if isinstance(e, str) and e is ARRAY else e for e in entries))
    return found if found.shape else found.dense()


def entries_of(index: Any) -> tuple[list[Tensor], tuple[Any, ...]]:
    """The tensors in an index, and its entries with ARRAY in their place; for `torch.compile`.

    Numbers are those of this call: where others come, code is compiled anew.

    >>> entries_of((torch.tensor([0, 2]), slice(1, 3), ...))
    ([tensor([0, 2])], ('array', slice(1, 3, None), Ellipsis))
    """
    entries = index if isinstance(index, tuple) else (index,)
    arrays = [torch.as_tensor(e) for e in entries if isinstance(e, Tensor | np.ndarray)]
    return arrays, tuple(ARRAY if isinstance(e, Tensor | np.ndarray) else _static(e) for e in entries)


def _static(entry: Any) -> Any:
    if isinstance(entry, slice):
        return slice(_static(entry.start), _static(entry.stop), _static(entry.step))
    if isinstance(entry, list | tuple):
        return [_static(e) for e in entry]
    return operator.index(entry) if isinstance(entry, int) and not isinstance(entry, bool) else entry


def _scaled(x: Seen, number: Any) -> Seen:
    return Seen(x.value * _number(number, x), x.layout)


def _divided(x: Seen, number: Any) -> Seen:
    return Seen(x.value / _number(number, x), x.layout)


def _number(number: Any, x: Seen) -> Any:
    """A number of which `torch.compile` does not know which one it is, as a tensor."""
    if isinstance(number, torch.SymFloat | torch.SymInt):
        return torch.scalar_tensor(number, dtype=x.value.dtype, device=x.value.device)  # type: ignore[arg-type]
    return number


def _permuted(x: Seen, order: Sequence[int]) -> Seen:
    wanted = [k % len(x.shape) for k in order]
    if sorted(wanted) != list(range(len(x.shape))):
        raise OptionError(
            f"{tuple(order)} came as the order of {len(x.shape)} axes.", "Name every axis exactly once."
        )
    return x.permuted(wanted)


def _difference(a: Seen, b: Seen) -> Seen | None:
    return arithmetic.added(a, Seen(-b.value, b.layout))


ACTS: Mapping[str, Callable[..., Outcome]] = {
    "index": _indexed,
    "permute": _permuted,
    "add": arithmetic.added,
    "subtract": _difference,
    "multiply": arithmetic.multiplied,
    "scale": _scaled,
    "divide": _divided,
    "negate": lambda x: Seen(-x.value, x.layout),
    "detach": lambda x: Seen(x.value.map(torch.Tensor.detach), x.layout),
    "mode_dot": arithmetic.mode_dot,
    "norm": lambda x: x.value.norm(),
    "inner": arithmetic.inner,
    "linear": lambda weight, x, bias: products.linear(x, weight, bias),
}


class Outlook(NamedTuple):
    """What will come of a recipe: "factors", a "plain" tensor, "nothing" where factors do not serve,
    "unknown" where that is an error, or depends on what is in a tensor."""

    kind: str
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32


class Noted(NamedTuple):
    """A tensor that is not made yet: stored factors and other operands, and what is to be done with them."""

    items: tuple[Any, ...]
    recipe: Recipe

    def then(self, act: str, operands: Sequence["Noted"] = (), options: tuple[Any, ...] = ()) -> "Noted":
        """One more act, on this and other tensors.

        >>> Noted((1,), ITEM).then("divide", [Noted((2,), ITEM)]).recipe
        ('divide', (), (('item', (), ()), ('item', (), ())))
        """
        items, parts = self.items, [self.recipe]
        for other in operands:
            items = items + other.items
            parts.append(other.recipe)
        return Noted(items, (act, options, tuple(parts)))

    def made(self) -> Any:
        """What comes of it."""
        return made(self.recipe, iter(self.items))

    def dense(self) -> Tensor:
        """The plain tensor; one call in a compiled graph."""
        found: Tensor = carried_out(self.recipe, *self.items)
        return found

    def outcome(self) -> Outlook:
        """What comes of it; nothing is calculated."""
        return foreseen(self.recipe, tuple(_stand_in(x) for x in self.items))


def made(recipe: Recipe, items: Iterator[Any]) -> Any:
    """Do what was noted, each step on what comes of the steps before."""
    act, options, parts = recipe
    if act == "item":
        return next(items)
    if act == "factors":
        return unwired(options[0], items)
    return ACTS[act](*(made(part, items) for part in parts), *options)


@torch.compiler.allow_in_graph
def carried_out(recipe: Recipe, *items: Any) -> Any:
    """The plain tensor that comes of a recipe."""
    found = made(recipe, iter(items))
    return found.dense() if isinstance(found, Seen) else found


@torch.compiler.assume_constant_result
def foreseen(recipe: Recipe, items: tuple[Any, ...]) -> Outlook:
    """What `Noted.outcome` says, from shapes and dtypes in the place of tensors."""
    tensors = (torch.empty(x[0], dtype=x[1], device="meta") if isinstance(x, tuple) else x for x in items)
    try:
        found = made(recipe, tensors)
    except (TenfoldError, NotImplementedError):  # of meta tensors
        return Outlook("unknown")
    if isinstance(found, Seen):
        return Outlook("factors", tuple(found.shape), found.value.dtype)
    return Outlook("nothing") if found is None else Outlook("plain", tuple(found.shape), found.dtype)


def _stand_in(item: Any) -> Any:
    """A shape and a dtype for a tensor, any number for a number."""
    if isinstance(item, Tensor) and item.ndim:
        return tuple(item.shape), item.dtype
    return 1j if isinstance(item, complex) or (isinstance(item, Tensor) and item.is_complex()) else 1.0


# Factors as they are stored ---------------------------------------------------------------------------


def wired(value: Format, layout: Layout | None, network: Network, stored: Sequence[Stored] = ()) -> str:
    """All that says how stored factors make up a tensor, as text that `unwired` reads.

    `network` is that of the digits; without `stored` factors are in its order.
    A format that is not registered is read as the general network that it is.
    """
    name = next((name for name in formats if formats[name] is type(value)), "")
    static = value.static if name else {"joined": value.network.factors}
    missing = tuple(f is None for f in value.slots) if name else (False,) * len(value.factors)
    seen_as = layout and (layout.weight, layout.modes, layout.sizes)
    orders = tuple(s.groups for s in stored) or tuple((axes,) for axes in network.factors)
    graph = tuple(zip(network.factors, orders, strict=True))
    return repr((name, tuple(static.items()), missing, seen_as, graph, network.sizes, value.network.shapes))


def unwired(wiring: str, items: Iterator[Tensor]) -> Seen:
    """The tensor that stored factors, the next ones of `items`, make up.

    >>> from tenfold.formats import CP
    >>> cp = CP((torch.ones(3, 2), torch.ones(4, 2)))
    >>> unwired(wired(cp, None, cp.network), iter(cp.factors)).dense().shape
    torch.Size([3, 4])
    """
    name, static, missing, seen_as, graph, sizes, shapes = _read(wiring)
    size_of = dict(sizes)
    factors = (
        rearrange(next(items), distinct(groups), axes, size_of, shape)
        for (axes, groups), shape in zip(graph, shapes, strict=True)
    )
    kind: type[Format] = formats[name] if name else General
    value = kind.from_factors([None if absent else next(factors) for absent in missing], **dict(static))
    return Seen(value, seen_as and Layout(*seen_as))


@lru_cache(maxsize=4096)
def _read(wiring: str) -> Any:
    return literal_eval(wiring)
