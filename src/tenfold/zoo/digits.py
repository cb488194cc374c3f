"""A network for scikit-learn's 8×8 digits, far larger than they need: something to compress in seconds."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import nn

from tenfold.zoo.registry import networks


@networks.register("digits_cnn")
def digits_cnn(num_classes: int = 10) -> nn.Module:
    """Four 3×3 convolutions with batch norm for N×1×8×8 images; 260 682 parameters with 10 classes.

    Trains on one core to more than 97 % in a few seconds.

    >>> sum(p.numel() for p in digits_cnn().parameters())
    260682
    """
    features = nn.Sequential(*_convolutions((1, 64, 64)), nn.MaxPool2d(2), *_convolutions((64, 128, 128)))
    return nn.Sequential(
        OrderedDict(
            features=features,
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(128, num_classes),
        )
    )


def _convolutions(widths: Sequence[int]) -> Iterator[nn.Module]:
    for channels, filters in pairwise(widths):
        yield nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        yield nn.BatchNorm2d(filters)
        yield nn.ReLU()
