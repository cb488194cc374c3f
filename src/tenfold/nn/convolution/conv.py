"""Factorized convolution of order 1, 2 and 3."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tenfold.core.network import Axes
from tenfold.formats import Ranks
from tenfold.nn.base import replaces
from tenfold.nn.convolution.kernel import SPATIAL, FactorizedKernel
from tenfold.nn.convolution.options import ConvOptions, each
from tenfold.nn.execute import run

__all__ = ["ConvOptions", "FactorizedConv"]

DENSE: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@replaces(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class FactorizedConv(FactorizedKernel):
    """A convolution of order 1, 2 or 3 whose kernel is held as factors and never made.

    >>> layer = FactorizedConv(16, 32, (3, 3), rank=4, format="cp", layout="o i h w -> o i (h w)", padding=1)
    >>> layer(torch.zeros(2, 16, 8, 8)).shape, layer.program.kinds
    (torch.Size([2, 32, 8, 8]), ('1x1', 'depthwise 3x3', '1x1'))
    """

    transposed: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        *,
        rank: Ranks | None = None,
        params: int | None = None,
        format: str,
        layout: str,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        example: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Random factors; the dense kernel has the deviation of torch's, 1 / sqrt(3 fan_in).

        `kernel_size` has one number for each spatial axis; `rank` says how large the bonds are, or `params`
        how many elements the factors may have. The other settings are those of `nn.Conv2d`.
        """
        taps = tuple(kernel_size)
        order = len(taps)
        ends = padding if isinstance(padding, str) else each(padding, order)
        options = ConvOptions(each(stride, order), ends, each(dilation, order), groups, padding_mode)
        like = torch.empty((), device=device, dtype=dtype)
        drawn = (format, rank, params)
        self._draw((in_channels, out_channels), taps, options, layout, drawn, bias, example, like)

    @staticmethod
    def pattern(dense: nn.Module) -> tuple[Axes, ...]:
        """Outputs (with their groups, if there are any), inputs, and the spatial axes."""
        groups: int = dense.groups  # type: ignore[assignment]
        outputs: Axes = ("o",) if groups == 1 else ("g", "o")
        order = len(dense.kernel_size)  # type: ignore[arg-type]
        return (outputs, ("i",), *((a,) for a in SPATIAL[order]))

    def _like(self, dtype: torch.dtype) -> nn.Module:
        o = self.options
        return DENSE[self.order](
            self.in_channels, self.out_channels, self.kernel_size, o.stride, o.padding, o.dilation, o.groups,
            self.bias is not None, o.padding_mode, device="meta", dtype=dtype,
        )  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        """(batch, in_channels, *positions) -> (batch, out_channels, *positions); the batch may be missing."""
        if input.ndim == self.order + 1:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        self.check_input(input)
        return run(self.program, input, self.weight.factors(), self.bias)
