"""The residual of a CP approximation: its norm and its MTTKRP, without holding it."""

from collections.abc import Iterator, Sequence
from math import prod

from jaxtyping import Num

from tenfold.algebra.mttkrp import allowed_bytes, check_factors, mttkrps, rounds
from tenfold.algebra.partial_sums import best_split
from tenfold.algebra.products import khatri_rao
from tenfold.algebra.unfolding import vec
from tenfold.core.arrays import Array, conjugate, is_complex, namespace

Block = tuple[slice, ...]


def residual_mttkrps(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], *, max_bytes: int | None = None
) -> tuple[Num[Array, ""], list[Num[Array, "_ r"]]]:
    """‖E‖² and `mttkrps(E, conjugate factors)` for the residual E = CP of the factors - tensor.

    Nothing cancels here, unlike in ‖X‖² - 2 Re⟨X, M⟩ + ‖M‖² and in the gradient made from it. E is formed a
    block of one mode at a time, such that all intermediates fit within `max_bytes`, by default those of the
    tensor.

    Raises:
        ShapeError: if a factor does not fit.

    >>> import numpy as np
    >>> factors = [np.ones((2, 1)), np.ones((3, 1))]
    >>> square, products = residual_mttkrps(np.zeros((2, 3)), factors)
    >>> round(float(square), 12), products[1][:, 0]
    (6.0, array([2., 2., 2.]))
    """
    check_factors(tensor, factors)
    xp, mode, blocks = namespace(tensor, *factors), *_blocks(tensor, factors, max_bytes)
    total, sums, rows = 0, [0] * tensor.ndim, []
    for block in blocks:
        residual, some = _residual(tensor, factors, block, max_bytes)
        total = total + _square(residual)
        conjugates = [conjugate(f) for f in some]
        products = mttkrps(residual, conjugates, max_bytes=max_bytes)
        rows.append(products[mode])
        sums = [0 if k == mode else s + p for k, (s, p) in enumerate(zip(sums, products, strict=True))]
    return total, [xp.concat(rows) if k == mode else s for k, s in enumerate(sums)]


def squared_residual(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], *, max_bytes: int | None = None
) -> Num[Array, ""]:
    """‖CP of the factors - tensor‖², a block of one mode at a time; memory as in `residual_mttkrps`.

    Raises:
        ShapeError: if a factor does not fit.

    >>> import numpy as np
    >>> round(float(squared_residual(np.zeros((2, 3)), [np.ones((2, 1)), np.ones((3, 1))])), 12)
    6.0
    """
    check_factors(tensor, factors)
    _, blocks = _blocks(tensor, factors, max_bytes)
    return sum((_square(_residual(tensor, factors, block, max_bytes)[0]) for block in blocks), start=0)


def _square(x: Num[Array, "..."]) -> Num[Array, ""]:
    """‖X‖², which unlike the square of a norm has a derivative where X is zero."""
    xp = namespace(x)
    square = xp.vecdot(vec(x), vec(x))
    return xp.real(square) if is_complex(x) else square


def _residual(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], block: Block, max_bytes: int | None
) -> tuple[Num[Array, "..."], list[Num[Array, "_ r"]]]:
    """A block of E, and the rows of the factors that belong to it; components in rounds if they must."""
    xp = namespace(tensor, *factors)
    some, part = [f[rows, :] for f, rows in zip(factors, block, strict=True)], tensor[block]
    shape = tuple(part.shape)
    split = best_split(shape) if len(shape) > 1 else 1
    residual = -xp.reshape(part, (prod(shape[:split]), prod(shape[split:])))
    for few in rounds(tensor, some, sum(residual.shape), allowed_bytes(tensor, max_bytes) // 2):
        left, rest = khatri_rao(few[:split]), few[split:]
        residual = residual + left @ (khatri_rao(rest) if rest else xp.ones_like(left[:1, :])).T
    return xp.reshape(residual, shape), some


def _blocks(
    tensor: Num[Array, "*shape"], factors: Sequence[Num[Array, "_ r"]], max_bytes: int | None
) -> tuple[int, Iterator[Block]]:
    """The mode which cut in the fewest blocks keeps within the memory allowed, and these blocks."""
    shape, rank = tuple(tensor.shape), factors[0].shape[1]
    room = allowed_bytes(tensor, max_bytes) // tensor.dtype.itemsize
    counts = [_count(shape, rank, mode, room) for mode in range(len(shape))]
    mode = min(range(len(shape)), key=lambda k: (counts[k], -shape[k]))
    size = max(1, shape[mode])  # an empty mode is one block
    height = -(-size // min(counts[mode], size))
    whole = [slice(None)] * len(shape)
    starts = range(0, size, height)
    return mode, ((*whole[:mode], slice(s, s + height), *whole[mode + 1 :]) for s in starts)


def _count(shape: tuple[int, ...], rank: int, mode: int, room: int) -> int:
    """Into how many blocks, a power of two, to cut a mode; more than its size where that is not enough.

    A block is held up to three times while E is made, and with the Khatri-Rao products of its halves, or with
    as much again, while it is multiplied.

    >>> _count((512, 512, 9), 256, 1, 3_500_000), _count((512, 512, 9), 1024, 2, 3_500_000)
    (4, 8)
    """
    count = 1
    while count <= shape[mode]:
        block = (*shape[:mode], -(-shape[mode] // count), *shape[mode + 1 :])
        split = best_split(block) if len(block) > 1 else 1
        if 3 * prod(block) + rank * (prod(block[:split]) + prod(block[split:])) <= room:
            return count
        count *= 2
    return count
