"""The axes of a tensor held as factors in another order."""

from abc import abstractmethod
from typing import Any

from tenfold.nn.tensor.described import Described


class Turned(Described):
    """A tensor whose axes can be put in another order, over the same factors; the results are views."""

    @abstractmethod
    def _after(self, act: str, *operands: Any, options: tuple[Any, ...] = ()) -> Any:
        """What comes of an act of `tenfold.nn.tensor.acts`."""

    @property
    def T(self) -> Any:
        """The axes in reverse order, over the same factors."""
        return self.permute(*[-1 - k for k in range(self.ndim)])

    @property
    def mT(self) -> Any:
        """The last two axes exchanged, over the same factors."""
        return self.transpose(-1, -2)

    def t(self) -> Any:
        """The transposed matrix, over the same factors."""
        return self.T

    def transpose(self, first: int, second: int) -> Any:
        """Two axes exchanged, over the same factors."""
        order = list(range(self.ndim))
        order[first], order[second] = order[second], order[first]
        return self.permute(*order)

    def permute(self, *order: int) -> Any:
        """The axes in another order, over the same factors.

        Raises:
            OptionError: unless every axis comes once.
        """
        return self._after("permute", options=(order,))
