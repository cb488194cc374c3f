"""What a layer costs to run, by its ranks."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from tenfold.core.layout import Layout
from tenfold.core.network import Axis
from tenfold.formats import Format
from tenfold.nn import replacement
from tenfold.nn.convolution.conv import ConvOptions
from tenfold.ranks import Allotment

Count = Callable[[Allotment], int]
"""What a layer takes, by ranks; None stands for the dense layer."""


def flops_of(dense: nn.Module, kind: type[Format], layout: Layout, example: tuple[int, ...]) -> Count:
    """FLOPs of one forward pass over an input of shape `example`, by ranks; None stands for the dense layer.

    Counts the steps that the planner chooses, two operations for each multiply-add, without the bias.

    >>> from tenfold.formats import LowRank
    >>> layout = Layout.parse("o i -> o i").bind((512, 256))
    >>> count = flops_of(nn.Linear(256, 512), LowRank, layout, (100, 256))
    >>> count(None), count({"R": 8})
    (26214400, 1228800)
    """

    example = with_batch(dense, example)

    def count(ranks: Mapping[Axis, int] | None) -> int:
        if ranks is None:
            return dense_flops(dense, example)
        network = kind.skeleton(layout.mode_shape, ranks)
        value = kind.from_network(network, [torch.empty(s, device="meta") for s in network.shapes])
        return replacement(dense).from_dense(dense, value, layout, example).program.flops

    return count


def of_all_calls(
    inputs: Sequence[tuple[int, ...]], count: Callable[[tuple[int, ...]], Count]
) -> Count | None:
    """What all calls of a layer take, from what one takes on an input of a shape; None without any call.

    >>> total = of_all_calls([(2, 5), (3, 5), (2, 5)], lambda shape: lambda ranks: 100 * shape[0])
    >>> total and total(None)
    700
    """
    counts = [(times, count(shape)) for shape, times in Counter(inputs).items()]
    return (lambda ranks: sum(times * one(ranks) for times, one in counts)) if counts else None


def dense_flops(dense: nn.Module, example: tuple[int, ...]) -> int:
    """FLOPs of a layer over an input of shape `example`, without the bias; looking rows up takes none.

    >>> dense_flops(nn.Conv2d(3, 8, 3, padding=1), (2, 3, 5, 5))
    21600
    """
    weight = dense.get_parameter("weight")
    if isinstance(dense, nn.Embedding | nn.EmbeddingBag):
        return 0
    if isinstance(dense, nn.Linear):
        return 2 * math.prod(example[:-1]) * weight.numel()
    if isinstance(dense, nn.Bilinear):  # with the first input, then with the second
        return 2 * math.prod(example[:-1]) * (weight.numel() + weight.numel() // dense.in1_features)
    example = with_batch(dense, example)
    windows = ConvOptions.of(dense).windows(tuple(weight.shape[2:]), tuple(example[2:]))
    positions = math.prod(w.positions(t) for w, t in zip(windows, weight.shape[2:], strict=True))
    return 2 * example[0] * positions * weight.numel()


def with_batch(dense: nn.Module, example: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an input with an axis of samples, which convolutions may come without.

    >>> with_batch(nn.Conv2d(3, 8, 3), (3, 5, 5))
    (1, 3, 5, 5)
    """
    order = len(getattr(dense, "kernel_size", ()))
    return (1, *example) if order and len(example) == order + 1 else example
