"""Block term format: a sum of Tucker terms, held as one network."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

from jaxtyping import Shaped

from tenfold.core.arrays import Array, namespace
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes, bond, mode
from tenfold.formats.base import Format
from tenfold.formats.registry import formats
from tenfold.formats.tucker import Tucker


@formats.register("block_term")
@dataclass(frozen=True, eq=False)
class BlockTerm(Format):
    """X = sum over t of core[t] times a matrix U[t] in each mode: T Tucker terms of the same ranks.

    The number of terms is the size of bond T, which all factors share: ranks are (T, R0, R1, ...). With ranks
    1 it is CP with T components, with T = 1 Tucker. A matrix that is None leaves its mode whole in all terms:
    with the modes of the taps whole, a convolution runs as T groups between two 1 × 1 layers.

    (L, L, 1) terms are those of ranks (T, L, L, 1), and `ll1` makes them: a sum of matrices of rank L, each
    times a vector; it is unique under milder conditions than other ranks. One rank for all bonds, an int,
    gives as many terms as each term has ranks. Ranks are cut to what a term needs, and terms to one where a
    single term holds every tensor; a fraction of the parameters goes to the ranks of one term first.

    Source: De Lathauwer, SIAM J. Matrix Anal. Appl. 30(3), 2008, part II, eq. 1.1 and 4.1.

    >>> import numpy as np
    >>> x = BlockTerm.random((6, 5, 4), (3, 2, 2, 1), like=np.zeros(()), generator=0)
    >>> x.core.shape, [u.shape for u in x.matrices]
    ((3, 2, 2, 1), [(3, 6, 2), (3, 5, 2), (3, 4, 1)])
    >>> bool(np.allclose(x.dense(), sum(term.dense() for term in x.terms())))
    True
    """

    core: Shaped[Array, "terms *ranks"]
    matrices: tuple[Shaped[Array, "terms mode rank"] | None, ...]

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """A core over all bonds, and a matrix from each mode to its bond; all carry bond T."""
        bonds = tuple(bond(k) for k in range(order))
        return (("T", *bonds), *(("T", mode(k), b) for k, b in enumerate(bonds)))

    def terms(self) -> tuple[Tucker, ...]:
        """The Tucker terms: views of the factors."""
        return tuple(
            Tucker(self.core[t, ...], tuple(None if u is None else u[t, ...] for u in self.matrices))
            for t in range(self.core.shape[0])
        )

    @classmethod
    def of_terms(cls, terms: Sequence[Tucker]) -> Self:
        """The sum of some Tucker tensors of one shape; those of smaller ranks are filled up with zeros.

        Modes that are whole in some of the terms are made whole in all.

        >>> import numpy as np
        >>> a, b = (Tucker.random((4, 5), r, like=np.zeros(()), generator=r) for r in (1, 2))
        >>> x = BlockTerm.of_terms([a, b])
        >>> x.ranks, bool(np.allclose(x.dense(), a.dense() + b.dense()))
        ({'T': 2, 'R0': 2, 'R1': 2}, True)
        """
        if not terms:
            raise ShapeError("a block term tensor came without terms.", "Give at least one.")

        single = [cls.from_factors([s if s is None else s[None, ...] for s in x.slots]) for x in terms]
        value: Self = reduce(operator.add, single)
        return value

    @classmethod
    def ll1(
        cls,
        left: Shaped[Array, "terms m rank"],
        right: Shaped[Array, "terms n rank"],
        vectors: Shaped[Array, "terms p"],
    ) -> Self:
        """The sum of the matrices left[t] @ right[t].T, each times a vector: terms of ranks (L, L, 1).

        The cores are identity matrices.

        >>> import numpy as np
        >>> a, b, c = (np.random.default_rng(0).standard_normal(s) for s in ((3, 6, 2), (3, 5, 2), (3, 4)))
        >>> x = BlockTerm.ll1(a, b, c)
        >>> x.ranks, bool(np.allclose(x.dense(), np.einsum("til,tjl,tk->ijk", a, b, c)))
        ({'T': 3, 'R0': 2, 'R1': 2, 'R2': 1}, True)
        """
        shapes = [tuple(a.shape) for a in (left, right, vectors)]
        fit = [len(s) for s in shapes] == [3, 3, 2] and len({s[0] for s in shapes}) == 1
        if not fit or shapes[0][2] != shapes[1][2]:
            raise ShapeError(
                f"the factors of (L, L, 1) terms came with shapes {shapes}.",
                "Give (terms, m, L), (terms, n, L) and (terms, p).",
            )
        xp = namespace(left, right, vectors)
        one = xp.ones_like(vectors[:, :1])
        core = one[:, :, None] * xp.eye(shapes[0][2], dtype=one.dtype)[None, ...]
        return cls(core[..., None], (left, right, vectors[..., None]))
