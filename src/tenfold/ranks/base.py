"""Who gets how much: candidates, budgets, and the interface of the rules."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tenfold.core.arrays import Array, namespace, to_compute
from tenfold.core.errors import BudgetError
from tenfold.core.network import Axis, Network
from tenfold.core.registry import Registry
from tenfold.formats import Format
from tenfold.formats.graphs import ranks_within

Allotment = Mapping[Axis, int] | None
"""Bond -> size; None where a weight stays dense."""


@dataclass(frozen=True)
class Budget:
    """How much to keep of the weights that may be compressed.

    `params` is a fraction of their elements (a float up to 1.0) or a number of elements (an int). What is not
    a site, such as biases and normalisation layers, is not counted and not touched.

    >>> Budget(params=0.25).elements(1000), Budget(params=100).elements(1000)
    (250, 100)
    """

    params: float | int

    def __post_init__(self) -> None:
        is_count = isinstance(self.params, int) and not isinstance(self.params, bool)
        if isinstance(self.params, bool) or not (self.params >= 1 if is_count else 0 < self.params <= 1):
            raise BudgetError(
                f"a budget of params={self.params!r} came.",
                "Give the fraction to keep, in (0, 1.0], or a whole number of elements.",
            )

    def elements(self, dense: int) -> int:
        """The budget in elements, for weights of `dense` elements together."""
        return self.params if isinstance(self.params, int) else int(self.params * dense)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A weight with a format and a layout; its ranks are open.

    `shape` is that of its modes, `whole` numbers the modes that stay whole, and `tensor` gives the modes'
    array to rules that look at it.
    """

    name: str
    format: type[Format]
    shape: tuple[int, ...]
    whole: tuple[int, ...]
    tensor: Callable[[], Array]

    @property
    def dense(self) -> int:
        """Elements of the dense weight."""
        return math.prod(self.shape)

    @cached_property
    def full(self) -> Network:
        """The network with every rank as large as it can be."""
        return self.format.full(self.shape, self.whole)

    @cached_property
    def lowest(self) -> int:
        """The fewest elements it can have: with ranks of 1, or dense if that is less."""
        return min(self.full.with_ranks(dict.fromkeys(self.full.bonds, 1)).numel, self.dense)

    def cost(self, ranks: Allotment) -> int:
        """Elements that these ranks store."""
        return self.dense if ranks is None else self.full.with_ranks(ranks).clipped().numel

    def within(self, numel: int) -> Allotment:
        """The largest ranks that store at most `numel` elements (`lowest` if that is more); None: dense."""
        if numel >= self.dense or self.lowest == self.dense:
            return None
        return ranks_within(self.full, max(numel, self.lowest))

    def paying(self, ranks: Mapping[Axis, int]) -> Allotment:
        """`ranks`, cut to what their bonds can carry; None if the dense weight is no larger."""
        network = self.full.with_ranks(ranks).clipped()
        return network.ranks if network.numel < self.dense else None

    def spectra(self, bond: Axis) -> list[Array]:
        """Singular values of the unfoldings that cutting `bond` makes: one for a tree, one a mode for CP."""
        parts = self.full.cut(bond)
        chosen = parts[:1] if len(parts) == 2 else parts
        return [self._singular_values(tuple(self.full.modes.index(m) for m in part)) for part in chosen]

    def _singular_values(self, rows: tuple[int, ...]) -> Array:
        tensor = to_compute(self.tensor())
        xp = namespace(tensor)
        columns = tuple(k for k in range(tensor.ndim) if k not in rows)
        height = math.prod(self.shape[k] for k in rows)
        return xp.linalg.svdvals(xp.reshape(xp.permute_dims(tensor, rows + columns), (height, -1)))


class RankRule(ABC):
    """Base class of the rules; concrete ones are frozen dataclasses of their options."""

    @abstractmethod
    def __call__(self, candidates: Sequence[Candidate], budget: Budget | None) -> dict[str, Allotment]:
        """Ranks for every candidate by name, None for those that stay dense.

        Raises:
            BudgetError: if the budget cannot be met; it says the smallest that can.
        """


rules: Registry[type[RankRule]] = Registry("rank rule")
"""The registered rules; `rules["uniform"]` is a class."""


def allowed(candidates: Sequence[Candidate], budget: Budget | None) -> int | None:
    """The budget in elements; raises BudgetError if even the lowest ranks store more."""
    if budget is None:
        return None
    dense = sum(c.dense for c in candidates)
    lowest = sum(c.lowest for c in candidates)
    elements = budget.elements(dense)
    if elements < lowest:
        raise BudgetError(
            f"the budget is {elements:,} elements, but the smallest plan stores {lowest:,} of {dense:,}.",
            f"Keep at least params={math.ceil(1e4 * lowest / dense) / 1e4}, or choose another preset.",
        )
    return elements


def total(candidates: Sequence[Candidate], ranks: Mapping[str, Allotment]) -> int:
    """Elements that the ranks store together."""
    return sum(c.cost(ranks[c.name]) for c in candidates)
