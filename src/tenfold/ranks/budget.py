"""How much to keep, and in which units."""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, fields, replace
from typing import Literal, get_args

from tenfold.core.errors import BudgetError

Unit = Literal["params", "flops", "bytes", "latency"]
UNITS: tuple[Unit, ...] = get_args(Unit)
NOUNS = {"params": "elements", "flops": "FLOPs", "bytes": "bytes", "latency": "nanoseconds"}
STORED: tuple[Unit, ...] = ("params", "bytes")
"""The units of what a weight stores, which grows by the same with each rank of a bond; the others say what it
takes to run, which need not."""


@dataclass(frozen=True)
class Mixture:
    """Units that are added up, each at a price.

    >>> Mixture((("params", 2.0), ("flops", 0.5))).of({"params": 10, "flops": 100})
    70
    """

    prices: tuple[tuple[Unit, float], ...]

    def of(self, costs: Mapping[Unit, int]) -> int:
        """What costs in its units are together."""
        return round(sum(price * costs[unit] for unit, price in self.prices))


AnyUnit = Unit | Mixture
ROUNDING = 1e-6
"""By so much a fraction of what is counted, such as 0.29 of 100, may fall short of the number it means."""


def noun(unit: AnyUnit) -> str:
    """What a unit counts, in words."""
    return "parts" if isinstance(unit, Mixture) else NOUNS[unit]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True, repr=False)
class Budget:
    """How much to keep of the weights that may be compressed, and what bounds single ranks.

    `params`, `flops`, `bytes` or `latency` is a fraction of what the sites cost dense (a float up to 1.0), or
    a number of elements, FLOPs, bytes or nanoseconds (an int). What is not a site, such as biases and
    normalisation layers, is not counted and not touched. The latency is the sum of the times that the sites'
    layers take by themselves, measured one by one; what a network does between them comes on top. Of two
    units, both bounds hold.

    `floor`: every site keeps at least this fraction of what the uniform rule would give it, rounded down to a
    whole rank. None leaves it to the rule: 0.8 for those that compare sites with one another, where without
    a floor the result can be worse than uniform; 0 for the others. 0 switches it off. `cap`: no rank above
    this fraction of its full one, though a site may stay dense. `multiple`: ranks larger than this are
    rounded down to multiples of it, such as 8 or 16 for GPUs, unless the others leave less for a bond to
    carry.

    >>> Budget(params=0.25).allowance(1000), Budget(params=100).allowance(1000)
    (250, 100)
    >>> Budget(flops=0.5, floor=0, multiple=8)
    Budget(flops=0.5, floor=0, multiple=8)
    >>> Budget(latency=3_500_000).allowance(9_000_000)  # 3.5 of 9 milliseconds
    3500000
    >>> Budget(params=0.25, flops=0.4).units
    ('params', 'flops')
    """

    params: float | int | None = None
    flops: float | int | None = None
    bytes: float | int | None = None
    latency: float | int | None = None
    floor: float | None = None
    cap: float | None = None
    multiple: int | float | None = None
    max_drop: InitVar[float | None] = None

    def __post_init__(self, max_drop: float | None) -> None:
        if max_drop is not None:
            raise BudgetError(
                f"a budget of max_drop={max_drop!r} came, which no ranks can be read off without measuring.",
                "Call compress_within(model, max_drop, evaluate, compress): it searches for the budget.",
            )
        if len(self.units) not in (1, 2):
            problem = f"a budget in {', '.join(self.units) or 'no unit'} came."
            raise BudgetError(problem, f"Give one or two of {', '.join(UNITS)}.")
        for unit in self.units:
            self._check_amount(unit, getattr(self, unit))
        if self.floor is not None and not 0 <= self.floor <= 1:
            raise BudgetError(f"a floor of {self.floor!r} came.", "Give a fraction in [0, 1].")
        if self.cap is not None and not 0 < self.cap <= 1:
            raise BudgetError(f"a cap of {self.cap!r} came.", "Give a fraction in (0, 1].")
        if self.multiple is not None and not _is_count(self.multiple):
            raise BudgetError(f"a multiple of {self.multiple!r} came.", "Give a whole number from 1.")

    @staticmethod
    def _check_amount(unit: Unit, amount: object) -> None:
        if not _is_count(amount) and not (isinstance(amount, float) and 0 < amount <= 1):
            raise BudgetError(
                f"a budget of {unit}={amount!r} came.",
                f"Give the fraction to keep, in (0, 1.0], or a whole number of {NOUNS[unit]}.",
            )

    def __repr__(self) -> str:
        given = ((f.name, getattr(self, f.name)) for f in fields(self))
        return f"Budget({', '.join(f'{name}={value!r}' for name, value in given if value is not None)})"

    @property
    def units(self) -> tuple[Unit, ...]:
        """What is bounded: one unit or two."""
        return tuple(u for u in UNITS if getattr(self, u) is not None)

    @property
    def unit(self) -> AnyUnit:
        """What is counted; raises BudgetError if that is in two units."""
        return self._sole

    @property
    def amount(self) -> float | int:
        """The fraction (a float) or the count (an int), of the one unit."""
        return self.amounts[self._sole]

    @property
    def _sole(self) -> Unit:
        if len(self.units) > 1:
            raise BudgetError(f"{self} has two units, but one is needed here.", "Give a budget in one.")
        return self.units[0]

    @property
    def amounts(self) -> dict[Unit, float | int]:
        """The fraction or the count of every unit."""
        return {unit: getattr(self, unit) for unit in self.units}

    def only(self, unit: Unit) -> "Budget":
        """The budget in one of its units."""
        others = dict.fromkeys(set(self.units) - {unit})
        return replace(self, **others)

    def allowance(self, dense: int) -> int:
        """The budget in its unit, for sites that cost `dense` together."""
        return self.amount if isinstance(self.amount, int) else int(self.amount * dense + ROUNDING)

    def elements(self, dense: int) -> int:
        """The budget in elements, for weights of `dense` elements together."""
        return self.allowance(dense)

    def trimmed(self, rank: int, full: int) -> int:
        """A rank, at least 1, cut to the cap and down to a multiple.

        >>> Budget(params=0.5, cap=0.5, multiple=8).trimmed(31, full=60)
        24
        """
        rank = min(rank, full if self.cap is None else int(self.cap * full))
        step = int(self.multiple or 1)
        return max(1, rank if rank <= step else rank - rank % step)

    def next(self, rank: int) -> int:
        """The next larger rank that is a multiple."""
        step = int(self.multiple or 1)
        return rank + 1 if rank < step else rank + step


EVERYTHING = Budget(params=1.0)
"""The budget that binds nothing: no plan costs more than the dense weights."""
