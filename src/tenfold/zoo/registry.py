"""The networks that a file or command may name."""

from collections.abc import Callable

from torch import nn

from tenfold.core.registry import Registry

networks: Registry[Callable[[int], nn.Module]] = Registry("network")
