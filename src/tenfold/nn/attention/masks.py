"""What attention does not look at: the masks of `nn.MultiheadAttention`, checked and merged into one."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tenfold.core.errors import OptionError, ShapeError


def merged(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, heads: int, extra: int, dtype: torch.dtype
) -> Float[Tensor, "..."] | None:
    """What is added to scores (sequences, heads, queries, keys + extra), with axes of 1 where it is alike.

    Masks are as `check_masks` wants them, with a batch. True means: do not look. All may look at the `extra`
    keys.
    """
    masks = []
    if attn_mask is not None:
        apart = attn_mask[None, None] if attn_mask.ndim == 2 else attn_mask.unflatten(0, (-1, heads))
        masks.append(added(apart, dtype))
    if key_padding_mask is not None:
        masks.append(added(key_padding_mask[:, None, None], dtype))
    if not masks:
        return None
    mask = masks[0] if len(masks) == 1 else masks[0] + masks[1]
    return F.pad(mask, (0, extra)) if extra else mask


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to scores: minus infinity where a bool one is true."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def check_masks(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    is_causal: bool,
    heads: int,
    lengths: tuple[int, int, int],
    batched: bool,
) -> None:
    """Raise unless the masks are such as attention takes.

    `attn_mask` is (queries, keys) or (sequences * heads, queries, keys), and `key_padding_mask` (sequences,
    keys), or (keys,) without a batch; `lengths` are these numbers.

    Raises:
        ShapeError: otherwise.
        OptionError: for dtypes that are neither bool nor floating-point; for `is_causal` without a mask.
    """
    sequences, queries, keys = lengths
    if is_causal and attn_mask is None:
        raise OptionError("is_causal came without attn_mask.", "Give the causal mask too: it is a hint.")
    if attn_mask is not None:
        _check("attn_mask", attn_mask, (queries, keys), (sequences * heads, queries, keys))
    if key_padding_mask is not None:
        _check("key_padding_mask", key_padding_mask, (sequences, keys) if batched else (keys,))


def _check(name: str, mask: Tensor, *shapes: tuple[int, ...]) -> None:
    if all(mask.shape != shape for shape in shapes):
        wanted = " or ".join(map(str, shapes))
        raise ShapeError(f"{name} has shape {tuple(mask.shape)}, expected was {wanted}.")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise OptionError(f"{name} has the dtype {mask.dtype}.", "Give bools or floating-point numbers.")
