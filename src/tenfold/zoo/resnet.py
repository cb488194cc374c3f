"""Residual networks for 32×32 images (He, Zhang, Ren & Sun 2016, arXiv 1512.03385).

The stem is one 3×3 convolution of stride 1 without pooling, so that 32×32 images reach the first block at
full size. The modules carry the names of torchvision: `conv1`, `layer1.0.conv2`, `layer2.0.shortcut.0`,
`fc`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.zoo.registry import networks

Shortcut = Callable[[int, int, int], nn.Module]


class BasicBlock(nn.Module):
    """relu(x + two 3×3 convolutions of x)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = conv(channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """relu(x + a 1×1, a 3×3 and a 1×1 convolution of x); the last has four times the width."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = conv(channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = shortcut(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.shortcut(x))


class ZeroPadding(nn.Module):
    """The shortcut without parameters: every `stride`-th pixel, and zeros for the new channels."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def conv(channels: int, filters: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the image size at stride 1."""
    return nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=False)


def projection(channels: int, filters: int, stride: int) -> nn.Module:
    """Option B of the paper: a 1×1 convolution with batch norm where the shape changes."""
    if stride == 1 and channels == filters:
        return nn.Identity()
    return nn.Sequential(conv(channels, filters, 1, stride), nn.BatchNorm2d(filters))


def zero_padding(channels: int, filters: int, stride: int) -> nn.Module:
    """Option A of the paper: zeros for the new channels where the shape changes."""
    if stride == 1 and channels == filters:
        return nn.Identity()
    return ZeroPadding(filters - channels, stride)


def resnet(
    block: type[BasicBlock] | type[Bottleneck],
    depths: Sequence[int],
    widths: Sequence[int],
    num_classes: int,
    shortcut: Shortcut = projection,
) -> nn.Module:
    """A residual network of `depths[k]` blocks of width `widths[k]`; all but the first halve the image.

    >>> net = resnet(BasicBlock, depths=(1, 1), widths=(8, 16), num_classes=5)
    >>> [name for name, _ in net.named_children()]
    ['conv1', 'bn1', 'relu', 'layer1', 'layer2', 'pool', 'flatten', 'fc']
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=conv(3, widths[0], 3), bn1=nn.BatchNorm2d(widths[0]), relu=nn.ReLU()
    )
    channels = widths[0]
    for number, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        blocks = _stage(block, channels, width, depth, 1 if number == 1 else 2, shortcut)
        parts[f"layer{number}"] = nn.Sequential(*blocks)
        channels = width * block.expansion
    parts.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, num_classes))
    return nn.Sequential(parts)


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    channels: int,
    width: int,
    depth: int,
    stride: int,
    shortcut: Shortcut,
) -> Iterator[nn.Module]:
    """Blocks of one width; the first changes the shape."""
    yield block(channels, width, stride, shortcut)
    for _ in range(depth - 1):
        yield block(width * block.expansion, width, 1, shortcut)


@networks.register("resnet18")
def resnet18(num_classes: int = 10) -> nn.Module:
    """ResNet-18 for N×3×32×32 images; 11 173 962 parameters with 10 classes.

    >>> sum(p.numel() for p in resnet18().parameters())
    11173962
    """
    return resnet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), num_classes)


@networks.register("resnet20")
def resnet20(num_classes: int = 10) -> nn.Module:
    """ResNet-20 of He et al. (2016, section 4.2), shortcuts of option A; 269 722 parameters with 10 classes.

    The one to use without a GPU: 81 MFLOPs for an image of 3×32×32, where ResNet-18 has 1.1 GFLOPs.

    >>> sum(p.numel() for p in resnet20().parameters())
    269722
    """
    return resnet(BasicBlock, (3, 3, 3), (16, 32, 64), num_classes, zero_padding)


@networks.register("resnet34")
def resnet34(num_classes: int = 10) -> nn.Module:
    """ResNet-34 for N×3×32×32 images; 21 282 122 parameters with 10 classes.

    >>> sum(p.numel() for p in resnet34().parameters())
    21282122
    """
    return resnet(BasicBlock, (3, 4, 6, 3), (64, 128, 256, 512), num_classes)


@networks.register("resnet50")
def resnet50(num_classes: int = 10) -> nn.Module:
    """ResNet-50 (bottleneck blocks) for N×3×32×32 images; 23 520 842 parameters with 10 classes.

    >>> sum(p.numel() for p in resnet50().parameters())
    23520842
    """
    return resnet(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), num_classes)
