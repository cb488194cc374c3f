"""Factorized transposed convolution of order 1, 2 and 3."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tenfold.core.layout import Layout
from tenfold.core.network import Axes
from tenfold.formats import Format, Ranks
from tenfold.nn.base import replaces
from tenfold.nn.convolution.kernel import SPATIAL, FactorizedKernel
from tenfold.nn.convolution.options import ConvOptions, Ints, OutputPadding, each
from tenfold.nn.execute import run

DENSE: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@replaces(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
class FactorizedConvTranspose(FactorizedKernel):
    """A transposed convolution of order 1, 2 or 3 whose kernel is held as factors and never made.

    The weight is torch's, (inputs, outputs / groups, *taps): layouts begin with "i o", and in groups with
    "(g=4 i) o". Each factor with a spatial axis transposes that axis alone; channels are mixed by
    convolutions of one tap.

    >>> layer = FactorizedConvTranspose(
    ...     96, 64, (4, 4), rank=32, format="cp", layout="i o h w -> o i (h w)", stride=2, padding=1)
    >>> layer(torch.zeros(2, 96, 8, 8)).shape, layer.program.kinds
    (torch.Size([2, 64, 16, 16]), ('1x1', 'depthwise transposed 4x4', '1x1'))
    """

    transposed: ClassVar[bool] = True
    ends: OutputPadding

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
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        example: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Random factors; the dense kernel has the deviation of torch's, 1 / sqrt(3 fan).

        `kernel_size` has one number for each spatial axis; `rank` says how large the bonds are, or `params`
        how many elements the factors may have. The other settings are those of `nn.ConvTranspose2d`, which
        knows no `padding_mode` but "zeros" and no `padding` in words.
        """
        taps = tuple(kernel_size)
        order = len(taps)
        ends = padding if isinstance(padding, str) else each(padding, order)
        options = ConvOptions(
            each(stride, order),
            ends,
            each(dilation, order),
            groups,
            padding_mode,
            each(output_padding, order),
        )
        like = torch.empty((), device=device, dtype=dtype)
        drawn = (format, rank, params)
        self._draw((in_channels, out_channels), taps, options, layout, drawn, bias, example, like)

    def _build(
        self,
        value: Format,
        layout: Layout,
        options: ConvOptions,
        bias: nn.Parameter | None,
        example: Sequence[int] | None,
    ) -> None:
        super()._build(value, layout, options, bias, example)
        self.ends = OutputPadding.of(options, self.kernel_size)

    @property
    def output_padding(self) -> Ints:
        """What is added to the size of the output, at its end."""
        return self.options.output_padding or ()

    @staticmethod
    def pattern(dense: nn.Module) -> tuple[Axes, ...]:
        """Inputs (with their groups, if there are any), outputs, and the spatial axes."""
        groups: int = dense.groups  # type: ignore[assignment]
        inputs: Axes = ("i",) if groups == 1 else ("g", "i")
        order = len(dense.kernel_size)  # type: ignore[arg-type]
        return (inputs, ("o",), *((a,) for a in SPATIAL[order]))

    def _like(self, dtype: torch.dtype) -> nn.Module:
        o = self.options
        return DENSE[self.order](
            self.in_channels, self.out_channels, self.kernel_size, o.stride, o.padding, o.output_padding,
            o.groups, self.bias is not None, o.dilation, o.padding_mode, device="meta", dtype=dtype,
        )  # fmt: skip

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(batch, in_channels, *positions) -> (batch, out_channels, *positions); the batch may be missing.

        `output_size` chooses among the sizes that the stride leaves open; `output_padding` then does not
        count. It has the spatial axes, or all of the output.
        """
        alone = input.ndim == self.order + 1
        batch = input.unsqueeze(0) if alone else input
        self.check_input(batch)
        y = run(self.program, batch, self.weight.factors(), self.bias, self.ends(input.shape, output_size))
        return y.squeeze(0) if alone else y
