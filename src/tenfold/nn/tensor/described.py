"""What a tensor held as factors says of itself."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from tenfold.core.layout import Layout
from tenfold.core.network import Axis
from tenfold.core.program import Program
from tenfold.formats import Format
from tenfold.nn.tensor.seen import Seen


class Described(ABC):
    """A tensor held as factors: its shape, its size in memory, and the dense tensor."""

    layout: Layout | None
    program: Program | None

    @property
    @abstractmethod
    def value(self) -> Format:
        """The format over the factors, in the literature's order of axes; differentiable."""

    @property
    def seen(self) -> Seen:
        """The format with the layout through which it is a weight: what slices and arithmetic begin with."""
        return Seen(self.value, self.layout)

    def dense(self) -> Tensor:
        """The weight, contracted from its factors."""
        return Seen(self.value, self.layout).dense()

    def to_tensor(self) -> Tensor:
        """The weight, contracted from its factors: another name of `dense`."""
        return self.dense()

    @property
    def shape(self) -> torch.Size:
        """Shape of the dense weight."""
        return torch.Size(self.seen.shape)

    def size(self, dim: int | None = None) -> Any:
        """Shape of the dense weight, or its size along `dim`."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        """Number of axes of the dense weight."""
        return len(self.shape)

    def dim(self) -> int:
        """Number of axes of the dense weight."""
        return self.ndim

    def __len__(self) -> int:
        """Size of the first axis."""
        return int(self.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the factors."""
        dtype: torch.dtype = self.value.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Device of the factors."""
        device: torch.device = self.value.device
        return device

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient flows to any factor."""
        return any(f.requires_grad for f in self.value.factors)

    @property
    def ranks(self) -> dict[Axis, int]:
        """Bond -> size."""
        return self.value.ranks

    def numel(self) -> int:
        """Number of stored elements."""
        return self.value.numel
