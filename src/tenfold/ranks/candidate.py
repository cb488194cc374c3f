"""A weight with a format and a layout, and what its ranks cost."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from tenfold.core.arrays import Array
from tenfold.core.errors import BudgetError
from tenfold.core.network import Axes, Axis, Network
from tenfold.formats import Format
from tenfold.ranks.budget import EVERYTHING, NOUNS, STORED, AnyUnit, Budget, Mixture, Unit
from tenfold.ranks.spectra import (
    Spectrum,
    slice_spectrum,
    spectra_of_slices,
    spectral_norm,
    unfolding_spectrum,
)

Allotment = Mapping[Axis, int] | None
"""Bond -> size; None where a weight stays dense."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A weight with a format and a layout; its ranks are open.

    `shape` is that of its modes, `whole` numbers the modes that stay whole, and `tensor` gives the modes'
    array to rules that look at it. Further:

    - `weighted` gives the array in the metric of the data (whitened), which takes the place of `tensor`.
    - `scale` is what its squared error weighs in the loss: the loss rises by scale · ‖error‖².
    - `flops` and `latency` (in nanoseconds) say what ranks take to run, None being the dense weight. They are
      asked if the budget is in their unit, once for each ranks, and should not fall as ranks grow.
    - `itemsize` is the bytes of an element.
    - `fit` gives the squared error of a fit at some ranks, in the metric of the data; it is not given where
      the singular values say it exactly.
    - `stored` says how many elements are kept of a network; all that its factors have, if it is not given.
    - `site` names the weight, where several candidates are for one; a rule then uses one of them at most.

    >>> import numpy as np
    >>> from tenfold.formats import LowRank
    >>> fc = Candidate("fc", LowRank, (20, 30), (), lambda: np.eye(20, 30), itemsize=2)
    >>> fc.cost({"R": 4}), fc.cost({"R": 4}, "bytes"), fc.cost(None)
    (200, 400, 600)
    """

    name: str
    format: type[Format]
    shape: tuple[int, ...]
    whole: tuple[int, ...]
    tensor: Callable[[], Array]
    weighted: Callable[[], Array] | None = None
    scale: float = 1.0
    flops: Callable[[Allotment], int] | None = None
    itemsize: int = 4
    site: str | None = None
    latency: Callable[[Allotment], int] | None = None
    fit: Callable[[Mapping[Axis, int]], float] | None = None
    stored: Callable[[Network], int] | None = None

    @property
    def place(self) -> str:
        """The name of the weight."""
        return self.site or self.name

    @property
    def dense(self) -> int:
        """Elements of the dense weight."""
        return math.prod(self.shape)

    # Costs ---------------------------------------------------------------------------------------------

    @cached_property
    def full(self) -> Network:
        """The network with every rank as large as it can be."""
        return self.format.full(self.shape, self.whole)

    def cut(self, ranks: Mapping[Axis, int]) -> dict[Axis, int]:
        """The ranks, cut to what their bonds can carry; a bond that is not named stays full."""
        return self._sized(ranks).ranks

    def cost(self, ranks: Allotment, unit: AnyUnit = "params") -> int:
        """Elements or bytes that these ranks store, or the FLOPs or nanoseconds that they take, or a mixture.

        Raises:
            BudgetError: for FLOPs and latency, if the candidate does not say them.
        """
        if isinstance(unit, Mixture):
            return unit.of({u: self.cost(ranks, u) for u, _ in unit.prices})
        if unit not in STORED:
            return self._running(ranks, unit)
        elements = self.dense if ranks is None else self._elements(self._sized(ranks))
        return elements * (self.itemsize if unit == "bytes" else 1)

    def _elements(self, network: Network) -> int:
        return network.numel if self.stored is None else self.stored(network)

    def lowest(self, unit: AnyUnit = "params") -> int:
        """The least it can cost: with ranks of 1, or dense if that is less."""
        return min(self.cost(dict.fromkeys(self.full.bonds, 1), unit), self.cost(None, unit))

    @cached_property
    def _networks(self) -> dict[tuple[int, ...], Network]:
        return {}

    def _sized(self, ranks: Mapping[Axis, int]) -> Network:
        key = tuple(ranks.get(b, n) for b, n in self.full.ranks.items())
        if key not in self._networks:
            self._networks[key] = self.full.with_ranks(ranks).clipped()
        return self._networks[key]

    @cached_property
    def _work(self) -> dict[tuple[Unit, tuple[int, ...] | None], int]:
        return {}

    def _running(self, ranks: Allotment, unit: Unit) -> int:
        count = self.flops if unit == "flops" else self.latency
        if count is None:
            raise BudgetError(
                f"the budget counts {NOUNS[unit]}, but '{self.name}' does not say how many its ranks take.",
                f"Give Candidate({unit}=...), or a budget in {' or '.join(STORED)}.",
            )
        sizes = None if ranks is None else self.cut(ranks)
        key = unit, None if sizes is None else tuple(sizes.values())
        if key not in self._work:
            self._work[key] = count(sizes)
        return self._work[key]

    # Ranks ---------------------------------------------------------------------------------------------

    def trimmed(self, ranks: Mapping[Axis, int], terms: Budget = EVERYTHING) -> dict[Axis, int]:
        """The ranks within the cap, rounded to multiples, and cut to what their bonds can carry."""
        return self.cut({b: terms.trimmed(ranks.get(b, n), n) for b, n in self.full.ranks.items()})

    def paying(self, ranks: Mapping[Axis, int], terms: Budget = EVERYTHING) -> Allotment:
        """`trimmed` ranks; None if the dense weight costs no more."""
        sizes = self.trimmed(ranks, terms)
        return sizes if self.cost(sizes, terms.unit) < self.cost(None, terms.unit) else None

    def within(self, amount: int, terms: Budget = EVERYTHING) -> Allotment:
        """The largest ranks that cost at most `amount` (the least possible if that is more); None: dense.

        All ranks are one fraction of the full ones. What is left over is spent on single bonds, one step more
        each while it fits.
        """
        dense, lowest = self.cost(None, terms.unit), self.lowest(terms.unit)
        if amount >= dense or lowest == dense:
            return None
        amount = max(amount, lowest)
        ranks = self._fraction(1.0, terms)
        if self.cost(ranks, terms.unit) > amount:
            ranks = self._fraction(self._share(amount, terms), terms)
        while (grown := self._grown(ranks, amount, terms)) is not None:
            ranks = grown
        return ranks

    def _share(self, amount: int, terms: Budget) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            fits = self.cost(self._fraction(middle, terms), terms.unit) <= amount
            low, high = (middle, high) if fits else (low, middle)
        return low

    def _fraction(self, share: float, terms: Budget) -> dict[Axis, int]:
        return self.trimmed({b: int(share * n) for b, n in self.full.ranks.items()}, terms)

    def _grown(self, ranks: dict[Axis, int], amount: int, terms: Budget) -> dict[Axis, int] | None:
        """One step more for the bond that is furthest below its share, of those for which it fits."""
        for b in sorted(ranks, key=lambda b: ranks[b] / self.full.ranks[b]):
            grown = self.trimmed(ranks | {b: terms.next(ranks[b])}, terms)
            larger = grown != ranks and all(grown[a] >= n for a, n in ranks.items())
            if larger and self.cost(grown, terms.unit) <= amount:
                return grown
        return None

    # Spectra -------------------------------------------------------------------------------------------

    def spectra(self, bond: Axis) -> list[Spectrum]:
        """Singular values of the unfoldings that `bond` bounds, in the metric of the data.

        For a tree that is the one unfolding that cutting the bond makes; for CP one a mode; for a bond of a
        ring, which no cut separates, those of the modes next to it. Where modes number slices, which all
        have the bond's rank, the squares are added up over the slices: Σ_{i>R} of them is what all lose.
        """
        if not self.full.slices:
            return [self._spectrum(rows) for rows in self._rows(bond)]
        return [np.linalg.norm(self._by_slice(rows), axis=0) for rows in self._rows(bond)]

    def operators(self, bond: Axis) -> list[tuple[Spectrum, float]]:
        """Singular values of the matrices that `bond` bounds, each with the largest one of the weight.

        These are the `spectra`; where modes number slices there is one for each slice, and the weight has
        its slices side by side.
        """
        if not self.full.slices:
            return [(s, float(s[0])) for s in self.spectra(bond)]
        return [(s, self._norm(rows)) for rows in self._rows(bond) for s in self._by_slice(rows)]

    def mode_spectrum(self, k: int) -> Spectrum:
        """Singular values of the unfolding of mode k."""
        return self._spectrum((k,))

    @cached_property
    def slices(self) -> Spectrum:
        """Singular values of its slices, which bound the error of CP: see `slice_spectrum`."""
        return slice_spectrum(self._values())

    def _rows(self, bond: Axis) -> list[tuple[int, ...]]:
        return [self._numbers(part) for part in self._parts(bond)]

    def _numbers(self, modes: Axes) -> tuple[int, ...]:
        return tuple(self.full.modes.index(m) for m in modes)

    def _parts(self, bond: Axis) -> list[Axes]:
        parts = self.full.cut(bond)
        if len(parts) != 1:
            return list(parts[:1] if len(parts) == 2 else parts)
        return [(m,) for f in self.full.factors if bond in f for m in f if m in self.full.modes]

    @cached_property
    def _spectra(self) -> dict[tuple[int, ...], Spectrum]:
        return {}

    def _spectrum(self, rows: tuple[int, ...]) -> Spectrum:
        if rows not in self._spectra:
            self._spectra[rows] = unfolding_spectrum(self._values(), rows)
        return self._spectra[rows]

    @cached_property
    def _slices(self) -> dict[tuple[int, ...], Float[np.ndarray, "slices k"]]:
        return {}

    def _by_slice(self, rows: tuple[int, ...]) -> Float[np.ndarray, "slices k"]:
        if rows not in self._slices:
            self._slices[rows] = spectra_of_slices(self._values(), self._numbers(self.full.slices), rows)
        return self._slices[rows]

    @cached_property
    def _norms(self) -> dict[tuple[int, ...], float]:
        return {}

    def _norm(self, rows: tuple[int, ...]) -> float:
        if rows not in self._norms:
            self._norms[rows] = spectral_norm(self._values(), rows)
        return self._norms[rows]

    def _values(self) -> Array:
        return (self.weighted or self.tensor)()
