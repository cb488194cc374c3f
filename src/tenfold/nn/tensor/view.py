"""What a tensor held as factors can be asked for, and the view that slices and sums of it are."""

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from torch.utils._pytree import tree_map

from tenfold.core.errors import UnsupportedError
from tenfold.core.layout import Layout
from tenfold.formats import Format
from tenfold.nn.tensor import products
from tenfold.nn.tensor.acts import ACTS, ITEM, Noted, entries_of, wired
from tenfold.nn.tensor.fallback import dense, warn
from tenfold.nn.tensor.seen import Seen
from tenfold.nn.tensor.turned import Turned


class TensorLike(Turned):
    """A tensor held as factors: shape, slices, arithmetic, and torch's functions.

    Slices, sums with tensors of the same format, multiples by numbers, entrywise products and products of
    modes stay factorized: they are `FactorizedView`s, through which gradients flow to the factors. With a
    plain tensor, with numbers that are added, and between formats that have no common sum, the result is a
    plain tensor. Of torch's functions, `F.linear` and products of matrices run factor by factor, and the
    others are given `dense()`. All of these results are plain tensors.
    """

    @abstractmethod
    def noted(self) -> Noted:
        """The factors, and how they make up the tensor: what `torch.compile` begins with."""

    # Entries -------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        """What torch gives for `dense()[index]`, held as factors; a single entry is a tensor without axes.

        Numbers (NumPy's too), slices, None, ..., lists, arrays and boolean masks, by torch's rules: several
        arrays are followed together. Not so `Format`, where each acts on its own mode.

        Raises:
            TensorIndexError: an IndexError, for numbers out of range and what is no index.
        """
        if not torch.compiler.is_dynamo_compiling():
            return self._after("index", options=(index if isinstance(index, tuple) else (index,),))
        arrays, entries = entries_of(index)
        return self._after("index", *arrays, options=(entries,))

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
        return self._with(other, "add", operator.add)

    def __radd__(self, other: Any) -> Any:
        """The sum; `sum` of a list begins with 0, which adds nothing."""
        if isinstance(other, int | float) and other == 0:
            return self._after("permute", options=(tuple(range(self.ndim)),))
        return self._with(other, "add", operator.add)

    def __sub__(self, other: Any) -> Any:
        """The difference, as the sum."""
        return self._with(other, "subtract", operator.sub)

    def __rsub__(self, other: Any) -> Any:
        """The difference, as the sum."""
        return -self + other

    def __neg__(self) -> Any:
        """The tensor with all signs changed."""
        return self._after("negate")

    def __mul__(self, other: Any) -> Any:
        """The multiple by a number, or the entrywise product, whose ranks multiply; both factorized."""
        if _is_number(other):
            return self._after("scale", other)
        return self._with(other, "multiply", operator.mul)

    def __rmul__(self, other: Any) -> Any:
        """The multiple, as the product."""
        return self * other

    def __truediv__(self, other: Any) -> Any:
        """The multiple by the inverse of a number, factorized; divided by a tensor, dense."""
        if _is_number(other):
            return self._after("divide", other)
        return self._densely(operator.truediv, self, other)

    def _with(self, other: Any, act: str, densely: Callable[..., Any]) -> Any:
        if isinstance(other, TensorLike):
            found = self._after(act, other)
            if found is not None:
                return found
        elif not (isinstance(other, Tensor) or _is_number(other)):
            return NotImplemented
        return self._densely(densely, self, other)

    def _after(self, act: str, *operands: Any, options: tuple[Any, ...] = ()) -> Any:
        """What comes of an act: a view, a plain tensor, or None where factors do not serve.

        While `torch.compile` looks on it is only noted, and done when the tensor is needed.
        """
        if not torch.compiler.is_dynamo_compiling():
            return _done(act, (self, *operands), options)
        noted = self.noted().then(act, [_noted(x) for x in operands], options)
        kind = noted.outcome().kind
        if kind == "unknown":
            return _done_outside(act, (self, *operands), options)
        if kind == "nothing":
            return None
        return NotedView(noted) if kind == "factors" else noted.dense()

    def _densely(self, function: Callable[..., Any], *args: Any) -> Any:
        warn(function.__name__, args)
        return function(*(dense(a) for a in args))

    def __matmul__(self, other: Any) -> Any:
        """The product of matrices: factor by factor with a plain tensor, factorized with one that is held so.

        Two factorized matrices are joined if their inner axes have the same digits; otherwise the second is
        made dense.
        """
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        """The product of matrices, factor by factor."""
        return matmul(other, self)

    def mode_dot(self, operand: Tensor, axis: int) -> "FactorizedView":
        """The product of an axis with a matrix (new size, size), or with a vector, which removes the axis."""
        return self._after("mode_dot", operand, options=(axis,))

    def inner(self, other: "TensorLike | Tensor") -> Tensor:
        """The inner product with a tensor, factorized or not, conjugating this one; neither is made dense."""
        return self._after("inner", other)

    def norm(self) -> Tensor:
        """Frobenius norm, without making the tensor dense; exact to half the digits if terms cancel."""
        return self._after("norm")

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """`F.linear` with this weight, factor by factor; None if the shapes do not fit."""
        if not torch.compiler.is_dynamo_compiling():
            return products.linear(x, self.seen, bias)
        if self.ndim != 2 or x.ndim < 1 or x.shape[-1] != self.shape[1]:
            return None
        return self.noted().then("linear", [_noted(y) for y in (x, bias)]).dense()

    # Functions of torch --------------------------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """`F.linear` and products of matrices factor by factor, all else with `dense()`, at any depth."""
        named = kwargs or {}
        if not torch.compiler.is_dynamo_compiling():
            _check_kept(func, args[0] if args else named.get("tensor"))
        if func is F.linear:
            found = _linear(*args, **named)
        elif func in PRODUCTS and not named:
            found = _product(*args)
        elif func is torch.Tensor.__rmatmul__:
            found = _product(args[1], args[0])
        else:
            found = None
        if found is not None:
            return dense(found)
        warn(getattr(func, "__name__", str(func)), (args, named))
        return func(*tree_map(dense, args), **tree_map(dense, named))


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
        self._factors = value.factors

    @property
    def value(self) -> Format:
        """The format over the factors; differentiable."""
        return self._value

    def noted(self) -> Noted:
        """The factors, and how they make up the tensor."""
        return Noted(self._factors, ("factors", (self._wiring(),), ()))

    @torch.compiler.assume_constant_result
    def _wiring(self) -> str:
        return wired(self._value, self.layout, self.seen.network)

    def dense(self) -> Tensor:
        """The tensor, contracted from its factors."""
        return self.noted().dense() if torch.compiler.is_dynamo_compiling() else super().dense()

    @property
    def shape(self) -> torch.Size:
        """Shape of the dense tensor."""
        if torch.compiler.is_dynamo_compiling():
            return torch.Size(self.noted().outcome().shape)
        return super().shape

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the factors."""
        return self.noted().outcome().dtype if torch.compiler.is_dynamo_compiling() else super().dtype

    def to_matrix(self) -> Tensor:
        """The weight, contracted from its factors: another name of `dense`."""
        return self.dense()

    def detach(self) -> "FactorizedView":
        """The same tensor, cut off from gradients."""
        found: FactorizedView = self._after("detach")
        return found

    def __repr__(self) -> str:
        kind = type(self.value).__name__
        return f"FactorizedView({kind}, shape={tuple(self.shape)}, ranks={self.ranks})"


class NotedView(FactorizedView):
    """A view as code makes it that `torch.compile` compiles: the tensor is made when it is needed.

    Where it leaves the compiled code it is a view like others, of the general network.
    """

    def __init__(self, noted: Noted) -> None:
        self._noted, self.program = noted, None

    def noted(self) -> Noted:
        """The factors, and what is to be done with them."""
        return self._noted

    @property
    def seen(self) -> Seen:
        """The format with the layout."""
        found: Seen = self._noted.made()
        return found

    @property
    def value(self) -> Format:
        """The format over the factors; differentiable."""
        return self.seen.value

    @property
    def layout(self) -> Layout | None:  # type: ignore[override]
        """How the modes of the format make up the axes."""
        return self.seen.layout


def matmul(left: Any, right: Any) -> Any:
    """`left @ right`, one of them held as factors."""
    if not all(isinstance(x, TensorLike | Tensor) for x in (left, right)):
        return NotImplemented
    found = _product(left, right)
    if found is not None:
        return found
    warn("matmul", (left, right))
    return dense(left) @ dense(right)


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


def _check_kept(function: Any, subject: Any) -> None:
    """Raise UnsupportedError for what would change a tensor that nobody has: `nn.init.normal_`, `add_`."""
    name = getattr(function, "__name__", "")
    if isinstance(subject, TensorLike) and name.endswith("_") and not name.endswith("__"):
        raise UnsupportedError(
            f"'{name}' changes a tensor in place, but this one is held as factors.",
            "Change the factors, or begin anew with `tenfold.nn.init`.",
        )


def _noted(x: Any) -> Noted:
    return x.noted() if isinstance(x, TensorLike) else Noted((x,), ITEM)


def _done(act: str, operands: Sequence[Any], options: tuple[Any, ...]) -> Any:
    found = ACTS[act](*(x.seen if isinstance(x, TensorLike) else x for x in operands), *options)
    return FactorizedView(*found) if isinstance(found, Seen) else found


@torch.compiler.disable(
    reason="it is an error, or what is in a tensor decides on the shape; call it without torch.compile to see"
)
def _done_outside(act: str, operands: Sequence[Any], options: tuple[Any, ...]) -> Any:
    return _done(act, operands, options)


def _is_number(x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.ndim == 0
    return isinstance(x, int | float | complex | np.generic)
