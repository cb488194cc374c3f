"""Complex factors kept as pairs of real numbers, for any factorization."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.utils.parameter_list import ComplexFactorList, FactorList, pairs


class ComplexHandler:
    """Put before a factorization, it keeps every factor as (..., 2) real numbers and reads it as complex.

    Parameters, gradients and states are real, so that optimizers and processes need not know about complex
    numbers; weights, core and factors, and all that is calculated, are complex.
    """

    @classmethod
    def new(
        cls,
        shape: Any,
        rank: Any = "same",
        *,
        fixed_rank_modes: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = torch.cfloat,
    ) -> Self:
        """Random factors; a real dtype stands for the complex one of its precision."""
        kind = (dtype or torch.cfloat).to_complex()
        made: Self = super().new(  # type: ignore[misc]
            shape, rank, fixed_rank_modes=fixed_rank_modes, device=device, dtype=kind
        )
        return made

    def _list(self, factors: Sequence[Tensor]) -> FactorList:
        return ComplexFactorList(factors)

    def _hold(self, name: str, value: Tensor) -> None:
        """Keep a complex factor as pairs."""
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, pairs(value))
        else:
            self.register_buffer(name, pairs(value))

    def __getattr__(self, name: str) -> Any:
        held = super().__getattr__(name)  # type: ignore[misc]
        return torch.view_as_complex(held) if isinstance(held, Tensor) else held
