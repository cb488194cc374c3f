"""A tensor held as factors; everything that follows from its graph is written here once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Int, Num

from tenfold.core.arrays import Array, cast, conjugate, is_complex, namespace, root, to_compute
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes, Network, mode
from tenfold.formats.arithmetic import Arithmetic
from tenfold.formats.constructors import Constructed
from tenfold.formats.contracting import contracted
from tenfold.formats.entries import checked_indices, entries
from tenfold.formats.factored import array_fields, assigned
from tenfold.formats.graphs import apart, modes_of

__all__ = ["Format", "General", "array_fields", "assigned"]


class Format(Constructed, Arithmetic):
    """Base class of all formats. A concrete one is a frozen dataclass of arrays that says its `axes`.

    Fields are arrays, or tuples of arrays; where a factor is None, its mode is left whole and its bond is the
    mode itself. The fields in order are the factors in the order of `axes`. Options of the graph, such as a
    dimension tree, are fields too: `field(metadata={"static": True})`.
    """

    def dense(self) -> Array:
        """The represented tensor, contracted in the cheapest order."""
        return contracted(self.network, self.factors, self.network.modes)

    def at(self, indices: Int[Array, "n order"]) -> Num[Array, " n"]:
        """The entries at some indices, one for each row; the tensor is not made dense.

        Negative indices count from the end. Every entry costs about as much as contracting one row of each
        factor; in memory all stand side by side, so give millions in parts.

        Raises:
            ShapeError: unless `indices` are whole numbers of shape (n, order) within the tensor's shape.
        """
        return entries(self.network, self.factors, checked_indices(indices, self.shape, self.factors[0]))

    def inner(self, other: "Format") -> Array:
        """Inner product with any format of the same shape, conjugating `self`; neither is made dense.

        For two CP tensors the planner finds the Hadamard product of Gram matrices (Bader & Kolda 2007).
        """
        if self.shape != other.shape:
            raise ShapeError(f"inner product of shapes {self.shape} and {other.shape}.", "Give one shape.")
        theirs = apart(other.network, self.network.bonds)
        sizes = dict(self.network.sizes) | dict(theirs.sizes)
        both = Network((*self.network.factors, *theirs.factors), (), tuple(sizes.items()))
        namespace(*self.factors, *other.factors)  # refuses two libraries
        mine = tuple(conjugate(f) for f in self.factors)
        return contracted(both, (*mine, *other.factors), ())

    def norm(self) -> Array:
        """Frobenius norm; exact to half the digits of the dtype, of float32 at least, when terms cancel."""
        wide = self.map(to_compute)
        square = wide.inner(wide)
        xp = namespace(square)
        real = xp.real(square) if is_complex(square) else square
        length = root(real)
        dtype = xp.result_type(*self.factors)
        return cast(length, dtype) if xp.isdtype(dtype, "real floating") else length

    def _general(self, arrays: Sequence[Array], graph: Sequence[Axes]) -> "General":
        """A general network, its modes numbered anew."""
        names = {m: mode(n) for n, m in enumerate(modes_of(graph))}
        return General(tuple(arrays), tuple(tuple(names.get(a, a) for a in axes) for axes in graph))


@dataclass(frozen=True, eq=False)
class General(Format):
    """Any network: arrays, and the axes of each, with modes "m0", "m1", ... and bonds in capitals.

    The class methods take the graph as `joined`. `tenfold.formats.lattices` has the graphs of PEPS and MERA.

    >>> import numpy as np
    >>> star = (("A", "B", "C"), ("m0", "A"), ("m1", "B"), ("C", "m2"))
    >>> x = General.random((4, 5, 6), (2, 3, 2), joined=star, like=np.zeros(()), generator=0)
    >>> x.shape, x.ranks
    ((4, 5, 6), {'A': 2, 'B': 3, 'C': 2})
    """

    arrays: tuple[Array, ...]
    joined: tuple[Axes, ...] = field(metadata={"static": True})

    @staticmethod
    def axes(order: int, joined: tuple[Axes, ...] = ()) -> tuple[Axes, ...]:
        """The graph as it is given."""
        if not joined:
            raise ShapeError(f"a general network of order {order} has no graph of its own.", "Give `joined`.")
        return joined

    @property
    def graph(self) -> tuple[Axes, ...]:
        """The axes of every array."""
        return self.joined
