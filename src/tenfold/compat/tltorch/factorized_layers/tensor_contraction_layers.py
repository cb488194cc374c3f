"""Tensor contraction layers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.programs import linear_program, places_for, stored_for
from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.network import Axes, Network, mode
from tenfold.nn.execute import run


class TCL(nn.Module):
    """Each axis of the input but the batch is multiplied by a matrix (rank, size), in the cheapest order.

    Parameters are called "factor_0", "factor_1", ... and "bias", which has the shape of the output.

    Source: Kossaifi et al., 'Tensor contraction layers for parsimonious deep nets', CVPRW 2017,
    arXiv:1706.00439.

    >>> TCL((4, 5, 6), rank=(2, 3, 5), bias=True)(torch.ones(7, 4, 5, 6)).shape
    torch.Size([7, 2, 3, 5])
    """

    def __init__(
        self,
        input_shape: int | Sequence[int],
        rank: int | Sequence[int],
        verbose: int = 0,
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if verbose:
            raise OptionError(f"verbose={verbose} came, but nothing is printed here.", "Leave it out.")
        self.verbose = verbose
        self.input_shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
        self.order = len(self.input_shape)
        self.rank = (rank,) * self.order if isinstance(rank, int) else tuple(rank)
        if len(self.rank) != self.order or min(self.rank) < 1:
            raise OptionError(
                f"rank={rank} came for an input of {self.order} axes.", "Give one of 1 or more for each."
            )
        self.output_shape = self.rank
        self.contraction_modes = list(range(1, self.order + 1))
        for k, (n, r) in enumerate(zip(self.input_shape, self.rank, strict=True)):
            self.register_parameter(
                f"factor_{k}", nn.Parameter(torch.empty(r, n, device=device, dtype=dtype))
            )
        self.bias = nn.Parameter(torch.empty(self.rank, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()
        network, inputs, outputs = _network(self.input_shape, self.rank)
        self.program = linear_program(network, inputs, outputs)
        self.places = places_for(network, self.program)

    @property
    def factors(self) -> list[Tensor]:
        """The matrices."""
        return [self._parameters[f"factor_{k}"] for k in range(self.order)]  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *sizes) -> (batch, *ranks)."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ShapeError(f"the layer takes inputs {self.input_shape}, but {tuple(x.shape)} came.")
        stored = stored_for(self.factors, self.places)
        found = run(self.program, x.flatten(1), stored).unflatten(-1, self.rank)
        return found if self.bias is None else found + self.bias

    def reset_parameters(self) -> None:
        """Matrices and bias as in `nn.Linear`."""
        for factor in self.factors:
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(self.input_shape))
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """Shapes."""
        return f"{self.input_shape} -> {self.rank}, bias={self.bias is not None}"


def _network(sizes: Sequence[int], ranks: Sequence[int]) -> tuple[Network, Axes, Axes]:
    """A matrix for each axis; its inputs and its outputs."""
    inputs = tuple(mode(k) for k in range(len(sizes)))
    outputs = tuple(mode(k) for k in range(len(sizes), 2 * len(sizes)))
    both = tuple(zip((*inputs, *outputs), (*sizes, *ranks), strict=True))
    return Network(tuple(zip(outputs, inputs, strict=True)), (*inputs, *outputs), both), inputs, outputs
