"""VGG networks with batch norm for 32×32 images (Simonyan & Zisserman 2015, arXiv 1409.1556).

Five poolings bring 32×32 pixels down to one, so the classifier sees 512 numbers. The modules are
`features.<number>` and `classifier`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import nn

from tenfold.zoo.registry import networks

WIDTHS = (64, 128, 256, 512, 512)


def vgg(depths: Sequence[int], num_classes: int) -> nn.Module:
    """A VGG network with `depths[k]` convolutions of width `WIDTHS[k]` before the pooling number k.

    >>> sum(isinstance(module, nn.Conv2d) for module in vgg((1, 1, 1, 1, 2), 10).modules())
    6
    """
    features = nn.Sequential(*_features(depths))
    return nn.Sequential(
        OrderedDict(features=features, flatten=nn.Flatten(), classifier=nn.Linear(WIDTHS[-1], num_classes))
    )


def _features(depths: Sequence[int]) -> Iterator[nn.Module]:
    channels = 3
    for depth, width in zip(depths, WIDTHS, strict=True):
        for _ in range(depth):
            yield nn.Conv2d(channels, width, 3, padding=1)
            yield nn.BatchNorm2d(width)
            yield nn.ReLU()
            channels = width
        yield nn.MaxPool2d(2)


@networks.register("vgg11")
def vgg11(num_classes: int = 10) -> nn.Module:
    """VGG-11 for N×3×32×32 images; 9 231 114 parameters with 10 classes.

    >>> sum(p.numel() for p in vgg11().parameters())
    9231114
    """
    return vgg((1, 1, 2, 2, 2), num_classes)


@networks.register("vgg16")
def vgg16(num_classes: int = 10) -> nn.Module:
    """VGG-16 for N×3×32×32 images; 14 728 266 parameters with 10 classes.

    >>> sum(p.numel() for p in vgg16().parameters())
    14728266
    """
    return vgg((2, 2, 3, 3, 3), num_classes)


@networks.register("vgg19")
def vgg19(num_classes: int = 10) -> nn.Module:
    """VGG-19 for N×3×32×32 images; 20 040 522 parameters with 10 classes.

    >>> sum(p.numel() for p in vgg19().parameters())
    20040522
    """
    return vgg((2, 2, 4, 4, 4), num_classes)
