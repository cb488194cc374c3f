"""What a tensor held as factors can be asked for, and the view that slices and sums of it are."""

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from tenfold.core.errors import OptionError
from tenfold.core.layout import Layout
from tenfold.formats import Format
from tenfold.nn.tensor import arithmetic, products
from tenfold.nn.tensor.described import Described
from tenfold.nn.tensor.seen import Seen
from tenfold.nn.tensor.slicing import indexed


class DenseFallbackWarning(UserWarning):
    """A factorized weight was made dense because the function that met it has no factorized form."""


class TensorLike(Described):
    """A tensor held as factors: shape, slices, arithmetic, and torch's functions.

    Slices, sums with tensors of the same format, multiples by numbers, entrywise products and products of
    modes stay factorized: they are `FactorizedView`s, through which gradients flow to the factors. With a
    plain tensor, with numbers that are added, and between formats that have no common sum, the result is a
    plain tensor. Of torch's functions, `F.linear` and products of matrices run factor by factor, and the
    others are given `dense()`. All of these results are plain tensors.
    """

    # Entries -------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        """What torch gives for `dense()[index]`, held as factors; a single entry is a tensor without axes.

        Numbers (NumPy's too), slices, None, ..., lists, arrays and boolean masks, by torch's rules: several
        arrays are followed together. Not so `Format`, where each acts on its own mode.

        Raises:
            TensorIndexError: an IndexError, for numbers out of range and what is no index.
        """
        found = indexed(self.seen, index)
        return FactorizedView(*found) if found.shape else found.dense()

    def __iter__(self) -> Iterator[Any]:
        """The slices along the first axis."""
        return (self[k] for k in range(len(self)))

    def at(self, indices: Int[Tensor, "n order"]) -> Tensor:
        """Single entries, one for each row of numbers; nothing is made dense."""
        found: Tensor = self[tuple(torch.as_tensor(indices, device=self.device).unbind(1))].dense()
        return found

    # Arithmetic ----------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        """The sum: factorized with one of the same format and layout, whose ranks add up; otherwise dense."""
        return self._with(other, arithmetic.added, operator.add)

    def __radd__(self, other: Any) -> Any:
        """The sum; `sum` of a list begins with 0, which adds nothing."""
        if isinstance(other, int | float) and other == 0:
            return FactorizedView(*self.seen)
        return self._with(other, arithmetic.added, operator.add)

    def __sub__(self, other: Any) -> Any:
        """The difference, as the sum."""
        return self._with(other, _difference, operator.sub)

    def __rsub__(self, other: Any) -> Any:
        """The difference, as the sum."""
        return -self + other

    def __neg__(self) -> "FactorizedView":
        """The tensor with all signs changed."""
        return FactorizedView(-self.seen.value, self.layout)

    def __mul__(self, other: Any) -> Any:
        """The multiple by a number, or the entrywise product, whose ranks multiply; both factorized."""
        if _is_number(other):
            return FactorizedView(self.seen.value * other, self.layout)
        return self._with(other, arithmetic.multiplied, operator.mul)

    def __rmul__(self, other: Any) -> Any:
        """The multiple, as the product."""
        return self * other

    def __truediv__(self, other: Any) -> Any:
        """The multiple by the inverse of a number, factorized; divided by a tensor, dense."""
        if _is_number(other):
            return FactorizedView(self.seen.value / other, self.layout)
        return self._densely(operator.truediv, self, other)

    def _with(
        self, other: Any, factorized: Callable[[Seen, Seen], Seen | None], densely: Callable[..., Any]
    ) -> Any:
        if isinstance(other, TensorLike):
            found = factorized(self.seen, other.seen)
            if found is not None:
                return FactorizedView(*found)
        elif not (isinstance(other, Tensor) or _is_number(other)):
            return NotImplemented
        return self._densely(densely, self, other)

    def _densely(self, function: Callable[..., Any], *args: Any) -> Any:
        _warn(function.__name__, args)
        return function(*(_dense(a) for a in args))

    def __matmul__(self, other: Any) -> Any:
        """The product of matrices: factor by factor with a plain tensor, factorized with one that is held so.

        Two factorized matrices are joined if their inner axes have the same digits; otherwise the second is
        made dense.
        """
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        """The product of matrices, factor by factor."""
        return matmul(other, self)

    @property
    def T(self) -> "FactorizedView":
        """The axes in reverse order, over the same factors."""
        return FactorizedView(*self.seen.permuted(range(self.ndim)[::-1]))

    @property
    def mT(self) -> "FactorizedView":
        """The last two axes exchanged, over the same factors."""
        return self.transpose(-1, -2)

    def t(self) -> "FactorizedView":
        """The transposed matrix, over the same factors."""
        return self.T

    def transpose(self, first: int, second: int) -> "FactorizedView":
        """Two axes exchanged, over the same factors."""
        order = list(range(self.ndim))
        order[first], order[second] = order[second], order[first]
        return self.permute(*order)

    def permute(self, *order: int) -> "FactorizedView":
        """The axes in another order, over the same factors.

        Raises:
            OptionError: unless every axis comes once.
        """
        wanted = [k % self.ndim for k in order]
        if sorted(wanted) != list(range(self.ndim)):
            raise OptionError(
                f"{order} came as the order of {self.ndim} axes.", "Name every axis exactly once."
            )
        return FactorizedView(*self.seen.permuted(wanted))

    def mode_dot(self, operand: Tensor, axis: int) -> "FactorizedView":
        """The product of an axis with a matrix (new size, size), or with a vector, which removes the axis."""
        return FactorizedView(*arithmetic.mode_dot(self.seen, operand, axis))

    def inner(self, other: "TensorLike | Tensor") -> Tensor:
        """The inner product with a tensor, factorized or not, conjugating this one; neither is made dense."""
        return arithmetic.inner(self.seen, other.seen if isinstance(other, TensorLike) else other)

    def norm(self) -> Tensor:
        """Frobenius norm, without making the tensor dense; exact to half the digits if terms cancel."""
        norm: Tensor = self.value.norm()
        return norm

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """`F.linear` with this weight, factor by factor; None if the shapes do not fit.

        `torch.compile` cannot look on while steps are planned: it gets the dense weight.
        """
        return None if torch.compiler.is_dynamo_compiling() else products.linear(x, self.seen, bias)

    # Functions of torch --------------------------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """`F.linear` and products of matrices factor by factor, all else with `dense()`, at any depth."""
        named = kwargs or {}
        if func is F.linear:
            found = _linear(*args, **named)
        elif func in PRODUCTS and not named:
            found = _product(*args)
        elif func is torch.Tensor.__rmatmul__:
            found = _product(args[1], args[0])
        else:
            found = None
        if found is not None:
            return _dense(found)
        _warn(getattr(func, "__name__", str(func)), (args, named))
        return func(*tree_map(_dense, args), **tree_map(_dense, named))


PRODUCTS = (torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__)


class FactorizedView(TensorLike):
    """A tensor over factors that belong to others: what slices and sums of a `FactorizedTensor` are.

    Gradients flow through it to the factors. It has no parameters; `FactorizedTensor(view.value)` makes a
    module of it, with copies of the factors.

    >>> from tenfold.formats import CP
    >>> x = FactorizedView(CP.random((4, 5, 6), 2, like=torch.zeros(())))
    >>> x[1:, None, [0, 2]], (x + x).ranks
    (FactorizedView(General, shape=(3, 1, 2, 6), ranks={'R0': 2}), {'R': 4})
    """

    def __init__(self, value: Format, layout: Layout | None = None) -> None:
        self._value, self.layout, self.program = value, layout, None

    @property
    def value(self) -> Format:
        """The format over the factors; differentiable."""
        return self._value

    def to_matrix(self) -> Tensor:
        """The weight, contracted from its factors: another name of `dense`."""
        return self.dense()

    def detach(self) -> "FactorizedView":
        """The same tensor, cut off from gradients."""
        return FactorizedView(self._value.map(torch.Tensor.detach), self.layout)

    def __repr__(self) -> str:
        kind = type(self._value).__name__
        return f"FactorizedView({kind}, shape={tuple(self.shape)}, ranks={self.ranks})"


def matmul(left: Any, right: Any) -> Any:
    """`left @ right`, one of them held as factors."""
    if not all(isinstance(x, TensorLike | Tensor) for x in (left, right)):
        return NotImplemented
    found = _product(left, right)
    if found is not None:
        return found
    _warn("matmul", (left, right))
    return _dense(left) @ _dense(right)


def _product(left: Any, right: Any) -> Any:
    """The product of matrices where factors serve; otherwise None, and where torch.compile looks on."""
    if torch.compiler.is_dynamo_compiling():
        return None
    if isinstance(left, TensorLike) and isinstance(right, TensorLike):
        joined = products.both(left.seen, right.seen)
        return products.times(left.seen, right.dense()) if joined is None else FactorizedView(*joined)
    if isinstance(left, TensorLike):
        return products.times(left.seen, right)
    return products.times_from_left(left, right.seen)


def _linear(input: Any, weight: Any, bias: Any = None) -> Tensor | None:
    """`F.linear` where the weight is held as factors, and nothing else; otherwise None."""
    if not isinstance(weight, TensorLike) or not isinstance(input, Tensor) or isinstance(bias, TensorLike):
        return None
    return weight.linear(input, bias)


def _difference(a: Seen, b: Seen) -> Seen | None:
    return arithmetic.added(a, Seen(-b.value, b.layout))


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float | complex) or (isinstance(x, Tensor | np.generic) and x.ndim == 0)


def _dense(x: Any) -> Any:
    return x.dense() if isinstance(x, TensorLike) else x


def _warn(name: str, args: Sequence[Any]) -> None:
    """A warning where the weight of a layer is made dense: its factors then save nothing."""
    if any(isinstance(a, TensorLike) and a.program is not None for a in tree_leaves(args)):
        warnings.warn(
            f"{name} makes a factorized weight dense at each call", DenseFallbackWarning, stacklevel=3
        )
