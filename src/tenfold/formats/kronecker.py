"""A sum of Kronecker products."""

from dataclasses import dataclass

from jaxtyping import Num, Shaped

from tenfold.algebra.blocks import join_blocks
from tenfold.core.arrays import Array
from tenfold.core.errors import ShapeError
from tenfold.core.network import Axes, mode
from tenfold.formats.base import Format
from tenfold.formats.registry import formats


@formats.register("kronecker")
@dataclass(frozen=True, eq=False)
class KroneckerSum(Format):
    """X[a0, ..., b0, ...] = sum over r of left[r, a0, ...] right[r, b0, ...], of order 2N.

    `merged()` is the tensor of shape (a0 b0, a1 b1, ...), the sum of Kronecker products left[r] ⊗ right[r],
    as `numpy.kron` has them; `tenfold.algebra.split_blocks` is the way there. The format is a matrix of low
    rank in other words: its best approximation is a truncated SVD of the rearranged tensor. Tensors of any
    order, not only matrices.

    Source: Van Loan & Pitsianis, Approximation with Kronecker products, 1993.

    >>> import numpy as np
    >>> x = KroneckerSum.random((2, 3, 4, 5), 2, like=np.zeros(()), generator=0)
    >>> x.left.shape, x.right.shape, x.merged().shape
    ((2, 2, 3), (2, 4, 5), (8, 15))
    >>> bool(np.allclose(x.merged(), sum(np.kron(a, b) for a, b in zip(x.left, x.right))))
    True
    """

    left: Shaped[Array, "rank *outer"]
    right: Shaped[Array, "rank *inner"]

    @staticmethod
    def axes(order: int) -> tuple[Axes, ...]:
        """Two factors that share one bond: the first half of the modes, and the second."""
        if order < 2 or order % 2:
            raise ShapeError(
                f"KroneckerSum does not hold tensors of order {order}.",
                "Give as many outer modes as inner ones, the outer ones first.",
            )
        half = order // 2
        return (("R", *map(mode, range(half))), ("R", *map(mode, range(half, order))))

    def merged(self) -> Num[Array, "..."]:
        """The sum of the Kronecker products, of shape (a0 b0, a1 b1, ...)."""
        return join_blocks(self.dense())
