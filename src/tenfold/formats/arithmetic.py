"""Sums, differences, multiples and entrywise products of tensors, none of which is made dense."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tenfold.core.arrays import Array, cast, namespace
from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.core.network import Axes, Network, components, identity, shared_bonds
from tenfold.formats.blockwise import direct_sum, entrywise, stacked
from tenfold.formats.contracting import contracted
from tenfold.formats.factored import Factored
from tenfold.formats.graphs import apart
from tenfold.formats.indexing import Indexed
from tenfold.formats.scaling import Scalar, is_scalar, scaled

if TYPE_CHECKING:
    from tenfold.formats.base import Format


class Arithmetic(Indexed):
    """Operators on tensors in a format, with results in the same format.

    A sum has ranks that add up, and a product ranks that are products, whatever the tensor would need:
    rounding cuts them. Where a mode is whole in one operand, it is whole in the result.
    """

    __array_ufunc__ = None
    """NumPy leaves products with its numbers to us."""

    def __add__(self, other: "Format") -> "Format":
        """The sum of two tensors of one format: ranks add up.

        Where all factors share one bond (the components of CP, the terms of a block term tensor), it alone
        grows, and other bonds are as large as the larger.

        Raises:
            UnsupportedError: for two formats, or trees.
            ShapeError: for two shapes.
        """
        if not isinstance(other, Factored):
            return NotImplemented
        self._check_alike(other)
        a, b = _aligned(self, other)
        xp, ours, theirs = namespace(*a.factors), (a.network, a.factors), (b.network, b.factors)
        if len(components(a.network.factors, a.network.modes)) == 1:
            return a._over(direct_sum(ours, theirs, xp))
        extra = a._new_bond()
        return self._general(stacked(ours, theirs, xp), [(*f, extra) for f in a.network.factors])

    def __sub__(self, other: "Format") -> "Format":
        """The difference of two tensors of one format: ranks add up."""
        return self + -other if isinstance(other, Factored) else NotImplemented

    def __neg__(self) -> Self:
        """The tensor with all signs changed, which are those of its first factor."""
        return self._over([-self.factors[0], *self.factors[1:]])

    def __mul__(self, other: "Format | Scalar") -> "Format":
        """The multiple by a number, spread over the factors; or the entrywise (Hadamard) product of two
        tensors, whose ranks multiply.

        The product of two formats is the general network of both, each mode carried by factors of either.

        Raises:
            ShapeError: for tensors of two shapes, and for arrays with axes.
        """
        if isinstance(other, Factored):
            return self._hadamard(other)
        return self._over(scaled(self.factors, self._number(other)))

    def __rmul__(self, scalar: Scalar) -> "Format":
        """The multiple by a number."""
        return self * scalar

    def __truediv__(self, scalar: Scalar) -> "Format":
        """The multiple by the inverse of a number; raises OptionError for 0, unless it is in an array of a
        library with gradients."""
        scalar = self._number(scalar)
        if isinstance(scalar, int | float | complex | np.generic | np.ndarray) and scalar == 0:
            raise OptionError(f"a {self._name} cannot be divided by {scalar}.", "Give another number.")
        return self * (1 / scalar)

    def _number(self, scalar: Any) -> Scalar:
        if is_scalar(scalar):
            return scalar
        came = f"an array of shape {tuple(scalar.shape)}" if hasattr(scalar, "shape") else repr(scalar)
        raise ShapeError(
            f"a {self._name} cannot be multiplied or divided by {came}.",
            "Give a number, or multiply with a tensor in a format; dense() makes this one an array.",
        )

    def _hadamard(self, other: Any) -> "Format":
        self._check_shape(other, "an entrywise product")
        if not self._is_alike(other):
            return self._both(other)
        a, b = _aligned(self, other)
        ours, theirs = (a.network, a.factors), (b.network, b.factors)
        return a._over(entrywise(ours, theirs, namespace(*a.factors)))

    def _both(self, other: Any) -> "Format":
        """The general network of all factors of two tensors, who share their modes."""
        theirs = apart(other.network, self.network.bonds)
        return self._general([*self.factors, *other.factors], [*self.network.factors, *theirs.factors])

    def _over(self, factors: Sequence[Array]) -> Any:
        """The same graph over other stored factors."""
        return self._replaced(dict(enumerate(factors)))

    def _is_alike(self, other: Factored) -> bool:
        return type(self) is type(other) and self.static == other.static

    def _check_alike(self, other: Factored) -> None:
        if not self._is_alike(other):
            raise UnsupportedError(
                f"a sum of {_described(self)} and {_described(other)} is in neither format.",
                "Decompose one of them in the format of the other, or add their dense() arrays.",
            )
        self._check_shape(other, "a sum")

    def _check_shape(self, other: Factored, what: str) -> None:
        if self.shape != other.shape:
            raise ShapeError(f"{what} of shapes {self.shape} and {other.shape}.", "Give one shape.")


def _described(value: Factored) -> str:
    options = ", ".join(f"{name}={option}" for name, option in value.static.items())
    return f"{type(value).__name__}({options})" if options else type(value).__name__


def _aligned(a: Any, b: Any) -> tuple[Any, Any]:
    """Two tensors of one format with the same modes whole, in one dtype."""
    ours, theirs = a.slots, b.slots
    for k, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        if x is None and y is not None:
            b = _opened(b, k)
        elif y is None and x is not None:
            a = _opened(a, k)
    xp = namespace(*a.factors, *b.factors)
    dtype = xp.result_type(*(f.dtype for f in (*a.factors, *b.factors)))
    return a.map(lambda f: cast(f, dtype)), b.map(lambda f: cast(f, dtype))


def _opened(value: Factored, slot: int) -> Factored:
    """The same tensor with one mode whole: its matrix is multiplied into the factor that it hangs on."""
    network = value.network
    n = sum(s is not None for s in value.slots[:slot])
    own = network.factors[n]
    pair = identity(own, shared_bonds(value.graph))
    assert pair is not None, "only mode matrices are ever left out"
    at = next(h for h, f in enumerate(network.factors) if h != n and pair[1] in f)
    product = _product(network, value.factors, (n, at), {pair[1]: pair[0]})
    slots = value._replaced({at: product}).slots
    return value.with_factors([None if k == slot else s for k, s in enumerate(slots)])


def _product(
    network: Network, factors: Sequence[Array], two: tuple[int, int], renamed: Mapping[str, str]
) -> Array:
    """The product of two factors over the axes of the second, of which one is `renamed`."""
    axes: tuple[Axes, ...] = tuple(network.factors[n] for n in two)
    out = tuple(renamed.get(a, a) for a in axes[1])
    return contracted(Network(axes, out, network.sizes), [factors[n] for n in two], out)
