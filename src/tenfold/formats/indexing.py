"""Slices and mode products: what acts on one mode, and on the factors that carry it."""

import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tenfold.algebra.unfolding import check_mode
from tenfold.core.arrays import Array, namespace, values_needed
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes, Axis
from tenfold.formats.factored import Factored
from tenfold.formats.graphs import expanded

if TYPE_CHECKING:
    from tenfold.formats.base import Format


class Indexed(Factored):
    """A format of which slices can be taken, and modes multiplied."""

    @abstractmethod
    def _general(self, arrays: Sequence[Array], graph: Sequence[Axes]) -> "Format":
        """The general network over these arrays."""

    def mode_dot(self, operand: Array, k: int) -> "Format":
        """Product of mode k with a matrix (new size, size), which keeps the format, or with a vector, which
        removes the mode and gives a general network. A matrix on a mode that several factors carry mixes
        slices, and gives a general network too."""
        xp, k = namespace(operand, *self.factors), check_mode(len(self.shape), k)
        if operand.ndim not in (1, 2) or operand.shape[-1] != self.shape[k]:
            raise ShapeError(
                f"mode {k} has size {self.shape[k]}, but the operand has shape {tuple(operand.shape)}.",
                "Give a matrix or a vector whose last axis is as long as the mode.",
            )
        if len(holders := self._holders(k)) > 1:
            return self._joined(operand, k)
        ((at, axis),) = holders.items()
        product = xp.tensordot(self.factors[at], operand, axes=((axis,), (operand.ndim - 1,)))
        if operand.ndim == 2:
            return self._kept({at: xp.moveaxis(product, -1, axis)})
        return self._without(k, {at: product})

    def __getitem__(self, index: Any) -> "Format":
        """Slices and index arrays keep the format; integers remove their mode and give a general network.

        Every entry acts on its own mode: two index arrays select a grid, not pairs as in NumPy. Boolean masks
        of one mode are index arrays.
        """
        value: Any = self
        for k, item in reversed(list(enumerate(expanded(index, len(self.shape))))):
            if not (isinstance(item, slice) and item == slice(None)):
                value = value._selected(item, k)
        chosen: Format = value
        return chosen

    @values_needed("a mask", "Give it as an array of NumPy, or give whole numbers.")
    def _selected(self, item: Any, k: int) -> "Format":
        item = _numbers(item)
        chosen = {n: self.factors[n][(slice(None),) * axis + (item,)] for n, axis in self._holders(k).items()}
        lost = {self.factors[n].ndim - factor.ndim for n, factor in chosen.items()}
        if isinstance(item, bool) or not lost <= {0, 1}:
            raise ShapeError(
                f"mode {k} cannot be indexed with {item!r}.", "Give an integer, a slice or one axis."
            )
        return self._without(k, chosen) if lost == {1} else self._kept(chosen)

    def _holders(self, k: int) -> dict[int, int]:
        """The factors that carry mode k, by number, and the axis that it has there."""
        name = self.network.modes[k]
        return {n: f.index(name) for n, f in enumerate(self.network.factors) if name in f}

    def _new_bond(self) -> Axis:
        """A name that no bond has yet."""
        return next(name for n in itertools.count() if (name := f"S{n}") not in self.network.bonds)

    def _kept(self, changed: Mapping[int, Array]) -> "Format":
        """The same graph, some factors in the place of others."""
        value: Any = self._replaced(changed)
        kept: Format = value
        return kept

    def _without(self, k: int, changed: Mapping[int, Array]) -> "Format":
        """The general network that is left when mode k is gone from its factors, which are now `changed`."""
        gone = self.network.modes[k]
        graph = [tuple(a for a in f if a != gone) for f in self.network.factors]
        return self._general([changed.get(n, f) for n, f in enumerate(self.factors)], graph)

    def _joined(self, operand: Array, k: int) -> "Format":
        """The general network with one more factor on mode k, which becomes a bond."""
        m, b = self.network.modes[k], self._new_bond()
        graph = [tuple(b if a == m else a for a in f) for f in self.network.factors]
        last = (m, b) if operand.ndim == 2 else (b,)
        return self._general([*self.factors, operand], [*graph, last])


def _numbers(item: Any) -> Any:
    """An index, arrays of whole numbers in 64 bits: PyTorch takes 8 bits without a sign for a mask."""
    if isinstance(item, np.ndarray):
        return item.astype(np.int64) if item.dtype.kind in "iu" else item
    if isinstance(item, torch.Tensor):
        whole = not (item.dtype == torch.bool or item.is_floating_point() or item.is_complex())
        return item.long() if whole else item
    return item
