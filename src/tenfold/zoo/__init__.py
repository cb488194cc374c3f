"""Networks to compress, as plain functions: those of the published study, and two that a CPU can train."""

from tenfold.zoo.digits import digits_cnn
from tenfold.zoo.registry import networks
from tenfold.zoo.resnet import resnet18, resnet20, resnet34, resnet50
from tenfold.zoo.vgg import vgg11, vgg16, vgg19

__all__ = [
    "digits_cnn",
    "networks",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "vgg11",
    "vgg16",
    "vgg19",
]
