"""A tensor that is not factorized, with the methods of those that are."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_tensors.widened import STD, Widened, empty, refuse_fixed
from tenfold.core.errors import OptionError
from tenfold.core.network import Axes, mode


class DenseTensor(Widened, name="Dense"):
    """A tensor that is not factorized, with the methods of those that are."""

    tensor: Tensor

    def __init__(self, tensor: Tensor, shape: Sequence[int] | None = None, rank: Any = None) -> None:
        super().__init__()
        self.shape = torch.Size(tensor.shape if shape is None else shape)
        self.rank, self.order = rank, len(self.shape)
        self._hold("tensor", tensor)

    @classmethod
    def new(  # type: ignore[override]
        cls,
        shape: Sequence[int],
        rank: Any = None,
        *,
        fixed_rank_modes: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random entries; there is no rank."""
        refuse_fixed(fixed_rank_modes, "a dense tensor")
        return cls(empty(shape, device, dtype)).normal_(0, STD)

    @classmethod
    def from_tensor(cls, tensor: Tensor, rank: Any = "same") -> Self:  # type: ignore[override]
        """A copy of the tensor, as a parameter."""
        return cls(nn.Parameter(tensor.detach().clone()))

    def _fit(self, tensor: Tensor, options: dict[str, Any]) -> Self:
        if options:
            raise OptionError(f"the options {sorted(options)} came for a dense tensor.", "It takes none.")
        return self._put([tensor])

    @property
    def decomposition(self) -> Tensor:
        """The tensor."""
        return self.tensor

    def _arrays(self) -> list[Tensor]:
        return [self.tensor]

    def _graph(self) -> tuple[Axes, ...]:
        return (tuple(mode(k) for k in range(self.tensor.ndim)),)

    def _over(self, arrays: Sequence[Tensor]) -> Self:
        return type(self)(arrays[0])

    def _taken(self, items: Sequence[Any]) -> Any:
        found = self.tensor
        for k, item in reversed(list(enumerate(items))):
            found = found[(slice(None),) * k + (item,)]
        return type(self)(found) if found.ndim else found
