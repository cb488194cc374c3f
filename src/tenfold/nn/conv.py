"""Factorized convolution of order 1, 2 and 3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.core.errors import LayoutError, OptionError, ShapeError
from tenfold.core.layout import Layout
from tenfold.core.lower import lower
from tenfold.core.network import Axes
from tenfold.core.search import Application, Window
from tenfold.formats import Format, Ranks, formats
from tenfold.nn.base import FactorizedLayer, Role, check_roles, copied, new_bias, replaces, role
from tenfold.nn.execute import run
from tenfold.nn.tensor import FactorizedTensor

Ints = tuple[int, ...]
SPATIAL: dict[int, Axes] = {1: ("w",), 2: ("h", "w"), 3: ("d", "h", "w")}
DENSE: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
LENGTH, BATCH = 28, 8


@dataclass(frozen=True)
class ConvOptions:
    """The settings of a convolution that its weight does not show; names and meaning are torch's."""

    stride: Ints
    padding: Ints | str
    dilation: Ints
    groups: int
    padding_mode: str

    def __post_init__(self) -> None:
        if self.padding_mode not in PADDING_MODES:
            known = ", ".join(PADDING_MODES)
            raise OptionError(f"padding_mode came as {self.padding_mode!r}.", f"Choose one of {known}.")
        if isinstance(self.padding, str) and self.padding not in ("same", "valid"):
            raise OptionError(f"padding came as {self.padding!r}.", 'Give numbers, "same" or "valid".')
        if self.padding == "same" and max(self.stride) > 1:
            raise OptionError('padding="same" is defined for stride 1 only.', "Give the padding in numbers.")

    @staticmethod
    def of(conv: nn.Module) -> "ConvOptions":
        """The settings of a dense convolution."""
        return ConvOptions(conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)  # type: ignore[arg-type]

    def windows(self, taps: Ints, lengths: Ints) -> tuple[Window, ...]:
        """How each spatial axis slides."""
        ends = [self._ends(k, t) for k, t in enumerate(taps)]
        return tuple(
            Window(s, before, after, d, n, self.padding_mode)
            for s, (before, after), d, n in zip(self.stride, ends, self.dilation, lengths, strict=True)
        )

    def _ends(self, k: int, taps: int) -> tuple[int, int]:
        """Padding before and after, with torch's convention for "same": the odd one goes after."""
        if self.padding == "same":
            total = self.dilation[k] * (taps - 1)
            return total // 2, total - total // 2
        if self.padding == "valid":
            return 0, 0
        return int(self.padding[k]), int(self.padding[k])


@replaces(nn.Conv1d, nn.Conv2d, nn.Conv3d)
class FactorizedConv(FactorizedLayer):
    """A convolution of order 1, 2 or 3 whose kernel is held as factors and never made.

    >>> layer = FactorizedConv(16, 32, (3, 3), rank=4, format="cp", layout="o i h w -> o i (h w)", padding=1)
    >>> layer(torch.zeros(2, 16, 8, 8)).shape, layer.program.kinds
    (torch.Size([2, 32, 8, 8]), ('1x1', 'depthwise 3x3', '1x1'))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        *,
        rank: Ranks,
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

        `kernel_size` has one number for each spatial axis; the other settings are those of `nn.Conv2d`.
        """
        order = len(kernel_size)
        if order not in DENSE:
            raise OptionError(
                f"kernel_size {tuple(kernel_size)} has order {order}.", "Give 1, 2 or 3 numbers."
            )
        if in_channels % groups or out_channels % groups:
            raise OptionError(f"{groups} groups do not divide {in_channels} and {out_channels} channels.")
        options = ConvOptions(
            _each(stride, order),
            padding if isinstance(padding, str) else _each(padding, order),
            _each(dilation, order),
            groups,
            padding_mode,
        )
        like = torch.empty((), device=device, dtype=dtype)
        shape = (out_channels, in_channels // groups, *kernel_size)
        bound = Layout.parse(layout).bind(shape, "FactorizedConv")
        fan_in = math.prod(shape[1:])
        value = formats[format].random(bound.mode_shape, rank, like=like, std=1 / math.sqrt(3 * fan_in))
        self._build(value, bound, options, new_bias(out_channels, fan_in, like) if bias else None, example)

    def _build(
        self,
        value: Format,
        layout: Layout,
        options: ConvOptions,
        bias: nn.Parameter | None,
        example: Sequence[int] | None,
    ) -> None:
        super().__init__()
        check_kernel(layout, options.groups)
        if layout.mode_shape != value.shape:
            raise LayoutError(
                f'layout "{layout}" gives modes {layout.mode_shape}, the factors {value.shape}.'
            )
        self.layout, self.options = layout, options
        self.order = len(layout.weight) - 2
        self.out_channels, per_group, *taps = layout.shape
        self.in_channels, self.kernel_size = per_group * options.groups, tuple(taps)
        lengths = (LENGTH,) * self.order if example is None else tuple(int(n) for n in example[2:])
        self.batch = BATCH if example is None else int(example[0])
        windows = options.windows(self.kernel_size, lengths)
        self.lengths = lengths
        outputs, inputs, *spatial = layout.weight
        shared = tuple(a for a in outputs if role(a) is Role.GROUP)
        app = Application(
            value.network.refined(layout.mode_groups),
            (*shared, *inputs),
            outputs,
            tuple((a, w) for (a,), w in zip(spatial, windows, strict=True)),
            max(1, self.batch),
        )
        self.program = lower(app)
        self.weight = FactorizedTensor(value, layout, self.program)
        self.bias = bias

    @property
    def stride(self) -> Ints:
        """Stride of each spatial axis."""
        return self.options.stride

    @property
    def padding(self) -> Ints | str:
        """Padding, as it was given."""
        return self.options.padding

    @property
    def dilation(self) -> Ints:
        """Dilation of each spatial axis."""
        return self.options.dilation

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self.options.groups

    @property
    def padding_mode(self) -> str:
        """How the input is padded."""
        return self.options.padding_mode

    @staticmethod
    def pattern(dense: nn.Module) -> tuple[Axes, ...]:
        """Outputs (with their groups, if there are any), inputs, and the spatial axes."""
        groups: int = dense.groups  # type: ignore[assignment]
        outputs: Axes = ("o",) if groups == 1 else ("g", "o")
        order = len(dense.kernel_size)  # type: ignore[arg-type]
        return (outputs, ("i",), *((a,) for a in SPATIAL[order]))

    @classmethod
    def from_dense(
        cls, dense: nn.Module, value: Format, layout: Layout, example: Sequence[int] | None = None
    ) -> Self:
        """The layer with the settings and the bias of `dense` and the kernel `value`."""
        layer = cls.__new__(cls)
        layer._build(value, layout, ConvOptions.of(dense), copied(dense.bias), example)  # type: ignore[arg-type]
        return layer.train(dense.training)

    @classmethod
    def from_conv(cls, conv: nn.Module, method: Any, ranks: Ranks | None, layout: str) -> Self:
        """Decompose a dense layer: `from_conv(conv, HOOI(), (16, 16, None), "o i h w -> o i (h w)")`."""
        return cls.decomposed(conv, method, ranks, layout)

    def to_dense(self) -> nn.Module:
        """The dense convolution that computes the same."""
        weight = self.weight.dense().detach()
        o = self.options
        dense = DENSE[self.order](
            self.in_channels, self.out_channels, self.kernel_size, o.stride, o.padding, o.dilation, o.groups,
            self.bias is not None, o.padding_mode, device="meta", dtype=weight.dtype,
        )  # fmt: skip
        dense.weight, dense.bias = nn.Parameter(weight), copied(self.bias)  # type: ignore[assignment]
        return dense.train(self.training)

    def planned(self) -> tuple[int, ...]:
        """(batch, in_channels, *lengths)."""
        return self.batch, self.in_channels, *self.lengths

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *positions) -> (batch, out_channels, *positions); the batch may be missing."""
        if x.ndim == self.order + 1:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        if x.ndim != self.order + 2 or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"the layer takes (batch, {self.in_channels}, {self.order} spatial axes), "
                f"but the input is {tuple(x.shape)}."
            )
        return run(self.program, x, self.weight.factors(), self.bias)

    def extra_repr(self) -> str:
        """Settings, as torch prints them."""
        o = self.options
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={o.stride}, "
            f"padding={o.padding}, dilation={o.dilation}, groups={o.groups}, bias={self.bias is not None}, "
            f"padding_mode={o.padding_mode}"
        )


def check_kernel(layout: Layout, groups: int) -> None:
    """Raise LayoutError unless the layout fits a kernel with so many groups."""
    order = len(layout.weight) - 2
    if order not in SPATIAL:
        raise LayoutError(f'layout "{layout}" has no kernel axes of order 1 to 3.', 'Begin it as "o i h w".')
    check_roles(layout, [(Role.OUT, Role.GROUP), (Role.IN,), *[(Role.SPATIAL,)] * order], "a kernel")
    if wide := [g for g in layout.weight[2:] if len(g) > 1]:
        raise LayoutError(f'layout "{layout}" splits a spatial axis into {wide[0]}.', "Keep it in one piece.")
    outputs = layout.weight[0]
    shared = tuple(a for a in outputs if role(a) is Role.GROUP)
    shown = math.prod(layout.extent(shared))
    if outputs[: len(shared)] != shared or shown != groups:
        raise LayoutError(
            f'layout "{layout}" shows {shown} groups, the convolution has {groups}.',
            f'Begin the outputs with an axis "g" of that size: "(g={groups} o) i ...".',
        )


def _each(value: int | Sequence[int], order: int) -> Ints:
    numbers = (value,) * order if isinstance(value, int) else tuple(value)
    if len(numbers) != order:
        raise OptionError(
            f"{numbers} came for {order} spatial axes.", "Give one number, or one for each axis."
        )
    return numbers
