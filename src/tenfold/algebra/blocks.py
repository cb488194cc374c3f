"""Tensors in blocks: the rearrangement that turns a Kronecker product into an outer product."""

from collections.abc import Sequence

from jaxtyping import Num

from tenfold.core.arrays import Array, namespace
from tenfold.core.errors import ShapeError


def split_blocks(tensor: Num[Array, "*shape"], outer: Sequence[int]) -> Num[Array, "*outer_inner"]:
    """The tensor cut into outer[0] × outer[1] × … blocks: the numbers of blocks, then the blocks' modes.

    A tensor of shape (a0 b0, a1 b1, …) becomes one of shape (a0, a1, …, b0, b1, …), and A ⊗ B becomes A ∘ B.

    Raises:
        ShapeError: unless there is one divisor for each mode.

    Source: Van Loan & Pitsianis 1993, the rearrangement R(A).

    >>> import numpy as np
    >>> a, b = np.arange(6.0).reshape(2, 3), np.arange(4.0).reshape(2, 2)
    >>> bool((split_blocks(np.kron(a, b), (2, 3)) == np.multiply.outer(a, b)).all())
    True
    """
    shape = tuple(tensor.shape)
    if len(outer) != len(shape) or any(a < 1 or n % a for a, n in zip(outer, shape, strict=True)):
        raise ShapeError(
            f"a tensor of shape {shape} cannot be cut into {' × '.join(map(str, outer))} blocks.",
            "Give a divisor of each mode.",
        )
    order = len(shape)
    pairs = [size for a, n in zip(outer, shape, strict=True) for size in (a, n // a)]
    xp = namespace(tensor)
    return xp.permute_dims(
        xp.reshape(tensor, tuple(pairs)), (*range(0, 2 * order, 2), *range(1, 2 * order, 2))
    )


def join_blocks(tensor: Num[Array, "*outer_inner"]) -> Num[Array, "*shape"]:
    """The tensor of shape (a0 b0, a1 b1, …) whose blocks are given: inverse of `split_blocks`.

    Raises:
        ShapeError: for a tensor of odd order.

    >>> import numpy as np
    >>> a, b = np.arange(6.0).reshape(2, 3), np.arange(4.0).reshape(2, 2)
    >>> bool((join_blocks(np.multiply.outer(a, b)) == np.kron(a, b)).all())
    True
    """
    if tensor.ndim % 2:
        raise ShapeError(
            f"a tensor of order {tensor.ndim} has no halves to join.",
            "Give as many inner modes as outer ones, the outer ones first.",
        )
    half = tensor.ndim // 2
    shape = tuple(tensor.shape[k] * tensor.shape[half + k] for k in range(half))
    xp = namespace(tensor)
    order = tuple(k for n in range(half) for k in (n, half + n))
    return xp.reshape(xp.permute_dims(tensor, order), shape)
