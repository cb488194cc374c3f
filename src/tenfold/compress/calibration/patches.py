"""Inputs and outputs of layers as matrices with one column for each position."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.nn.convolution.conv import ConvOptions


def order_of(layer: nn.Module) -> int | None:
    """Number of spatial axes: 0 for linear layers, 1 to 3 for convolutions, None for any other layer."""
    orders: dict[type[nn.Module], int] = {nn.Linear: 0, nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
    return orders.get(type(layer))


def in_compute(x: Tensor) -> Tensor:
    """Detached, in float32 at least."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def chunks(x: Tensor, max_bytes: int, each: int | None = None) -> Iterator[Tensor]:
    """Pieces along the first axis, brought to float32 at least, which take `max_bytes` or have one entry.

    `each` is what an entry will take; by default, what it takes itself.
    """
    each = x[:1].numel() * max(4, x.element_size()) if each is None else each
    return (in_compute(part) for part in x.split(max(1, max_bytes // max(1, each))))


def channel_matrix(x: Tensor, order: int, groups: int = 1) -> Tensor:
    """(channels, positions), or (groups, channels of each, positions); a view where memory allows.

    >>> channel_matrix(torch.zeros(2, 6, 5, 5), order=2, groups=3).shape
    torch.Size([3, 2, 50])
    """
    rows = x.movedim(1, -1) if order else x
    if order == 0 or rows.stride(-1) == 1:
        matrix = rows.reshape(-1, rows.shape[-1]).mT
    else:
        matrix = x.transpose(0, 1).reshape(x.shape[1], -1)
    return matrix if groups == 1 else matrix.unflatten(0, (groups, -1))


def windows(x: Tensor, conv: nn.Module) -> Tensor:
    """What each tap of each output sees: a view (batch, channels, *outputs, *taps) of the padded input.

    >>> windows(torch.arange(4.0).reshape(1, 1, 4), nn.Conv1d(1, 1, 3))
    tensor([[[[0., 1., 2.],
              [1., 2., 3.]]]])
    """
    taps: tuple[int, ...] = conv.kernel_size  # type: ignore[assignment]
    options = ConvOptions.of(conv)
    slides = options.windows(taps, tuple(x.shape[2:]))
    if pad := [n for s in reversed(slides) for n in (s.before, s.after)]:
        mode = "constant" if options.padding_mode == "zeros" else options.padding_mode
        x = F.pad(x, pad, mode) if any(pad) else x
    counts = [s.positions(t) for s, t in zip(slides, taps, strict=True)]
    steps = x.stride()[2:]
    strides = [n * s.stride for n, s in zip(steps, slides, strict=True)]
    dilations = [n * s.dilation for n, s in zip(steps, slides, strict=True)]
    return x.as_strided((*x.shape[:2], *counts, *taps), (*x.stride()[:2], *strides, *dilations))


def patch_matrices(
    x: Tensor, conv: nn.Module, max_bytes: int, kept: tuple[slice, ...] = ()
) -> Iterator[Tensor]:
    """Patches in pieces (channels · taps, positions), or (groups, those of each, positions).

    Rows are in the order of the weight's axes (i, *taps). A piece takes at most `max_bytes`, or is one row
    of outputs of one sample. Of the outputs, those that `kept` slices, axis by axis, are looked at.
    """
    order, groups = x.ndim - 2, int(conv.groups)  # type: ignore[arg-type]
    each = patch_bytes(x, conv, kept)
    for part in chunks(x, max_bytes, each):
        view = windows(part, conv)[(slice(None), slice(None), *kept)]
        row = max(1, len(part) * each // max(1, view.shape[2]))
        for piece in view.split(max(1, max_bytes // row), dim=2):
            axes = (1, *range(2 + order, 2 + 2 * order), 0, *range(2, 2 + order))
            matrix = piece.permute(axes).reshape(x.shape[1] * math.prod(piece.shape[2 + order :]), -1)
            yield matrix if groups == 1 else matrix.unflatten(0, (groups, -1))


def spread(
    counts: Sequence[int], samples: float, limit: int, generator: torch.Generator
) -> tuple[slice, ...]:
    """Slices of the output axes that leave about `limit` positions of a batch: a grid with a random start.

    >>> [s.step for s in spread((8, 8), 100, 1600, torch.Generator().manual_seed(1))]
    [2, 2]
    """
    surplus = samples * math.prod(counts) / max(1, limit)
    steps = [min(n, max(1, round(surplus ** (1 / max(1, len(counts)))))) for n in counts]
    starts = [int(torch.randint(n, (), generator=generator)) for n in steps]
    return tuple(slice(k, None, n) for k, n in zip(starts, steps, strict=True))


def positions_of(x: Tensor, conv: nn.Module) -> tuple[int, ...]:
    """The sizes of the output's spatial axes.

    >>> positions_of(torch.zeros(1, 2, 8, 6), nn.Conv2d(2, 3, 3, stride=2))
    (3, 2)
    """
    taps: tuple[int, ...] = conv.kernel_size  # type: ignore[assignment]
    slides = ConvOptions.of(conv).windows(taps, tuple(x.shape[2:]))
    return tuple(s.positions(t) for s, t in zip(slides, taps, strict=True))


def patch_bytes(x: Tensor, conv: nn.Module, kept: tuple[slice, ...] = ()) -> int:
    """Bytes of the patches of one sample, at the outputs that `kept` slices."""
    taps: tuple[int, ...] = conv.kernel_size  # type: ignore[assignment]
    outputs = positions_of(x, conv)
    counts = [len(range(n)[s]) for n, s in zip(outputs, kept or [slice(None)] * len(outputs), strict=True)]
    return x.shape[1] * math.prod(taps) * math.prod(counts) * max(4, x.element_size())


def patch_width(conv: nn.Module) -> int:
    """Entries of a patch: inputs of a group times taps."""
    return conv.get_parameter("weight")[0].numel()


def patches_are_inputs(layer: nn.Module) -> bool:
    """Whether every input position is one patch: a linear layer, or 1×1 without stride and padding.

    Layers of other kinds have no patches.
    """
    if (order := order_of(layer)) in (0, None):
        return order == 0
    options = ConvOptions.of(layer)
    ends = options.windows(layer.kernel_size, (1,) * len(options.stride))  # type: ignore[arg-type]
    return max(layer.kernel_size) == 1 and all(s.stride == 1 and s.before == s.after == 0 for s in ends)  # type: ignore[arg-type]
