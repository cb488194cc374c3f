"""What factorized convolutions share, ordinary and transposed: a kernel held as factors."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tenfold.core.errors import LayoutError, OptionError, ShapeError
from tenfold.core.layout import Layout
from tenfold.core.lower import lower
from tenfold.core.network import Axes
from tenfold.core.search import Application
from tenfold.formats import Format, Ranks, formats
from tenfold.nn.base import FactorizedLayer, Role, check_roles, copied, new_bias, role
from tenfold.nn.convolution.options import ConvOptions, Ints
from tenfold.nn.moments import scaled_to
from tenfold.nn.tensor.factorized import FactorizedTensor

SPATIAL: dict[int, Axes] = {1: ("w",), 2: ("h", "w"), 3: ("d", "h", "w")}
LENGTH, BATCH = 28, 8


class FactorizedKernel(FactorizedLayer):
    """A convolution of order 1, 2 or 3 whose kernel is held as factors and never made.

    The first axis of the weight, with the groups if there are any, is the outputs; of a transposed
    convolution the inputs.
    """

    transposed: ClassVar[bool]
    options: ConvOptions

    def _draw(
        self,
        channels: tuple[int, int],
        taps: Ints,
        options: ConvOptions,
        layout: str,
        drawn: tuple[str, Ranks | None, int | None],
        bias: bool,
        example: Sequence[int] | None,
        like: Tensor,
    ) -> None:
        """Random factors; the dense kernel has the deviation of torch's, 1 / sqrt(3 fan_in).

        `channels` are (inputs, outputs), `drawn` is the format with a rank or a number of parameters. As in
        torch, the fan of a transposed kernel is counted on its second axis, which is that of the outputs.
        """
        check_sizes(channels, taps, options.groups)
        first, second = channels if self.transposed else channels[::-1]
        shape = (first, second // options.groups, *taps)
        bound = Layout.parse(layout).bind(shape, type(self).__name__)
        fan_in = math.prod(shape[1:])
        value = random_value(bound, *drawn, 1 / math.sqrt(3 * fan_in), like)
        self._build(value, bound, options, new_bias(channels[1], fan_in, like) if bias else None, example)

    def _build(
        self,
        value: Format,
        layout: Layout,
        options: ConvOptions,
        bias: nn.Parameter | None,
        example: Sequence[int] | None,
    ) -> None:
        super().__init__()
        check_kernel(layout, options.groups, self.transposed)
        if layout.mode_shape != value.shape:
            raise LayoutError(
                f'layout "{layout}" gives modes {layout.mode_shape}, the factors {value.shape}.'
            )
        self.layout, self.options = layout, options
        self.order = len(layout.weight) - 2
        first, second, *taps = layout.shape
        channels = first, second * options.groups
        self.in_channels, self.out_channels = channels if self.transposed else channels[::-1]
        self.kernel_size = tuple(taps)
        shape = (BATCH, 0, *(LENGTH,) * self.order) if example is None else tuple(map(int, example))
        self.lengths = shape[-self.order :]
        self.batch = shape[0] if len(shape) == self.order + 2 else 1
        self.program = lower(self._application(value))
        self.weight = FactorizedTensor(value, layout, self.program)
        self.bias = bias

    def _application(self, value: Format) -> Application:
        """The network with what its axes do; the groups are shared by inputs and outputs."""
        layout = self.layout
        outer, inner, *spatial = layout.weight
        shared = tuple(a for a in outer if role(a) is Role.GROUP)
        inputs, outputs = (outer, (*shared, *inner)) if self.transposed else ((*shared, *inner), outer)
        windows = self.options.windows(self.kernel_size, self.lengths)
        return Application(
            value.network.refined(layout.mode_groups),
            inputs,
            outputs,
            tuple((a, w) for (a,), w in zip(spatial, windows, strict=True)),
            max(1, self.batch),
        )

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

    @classmethod
    def made_of(
        cls,
        value: Format,
        layout: Layout,
        options: ConvOptions,
        bias: nn.Parameter | None,
        example: Sequence[int] | None = None,
    ) -> Self:
        """The layer with the kernel `value`, seen through `layout`, with these settings and this bias."""
        layer = cls.__new__(cls)
        layer._build(value, layout, options, bias, example)
        return layer

    @classmethod
    def from_dense(
        cls, dense: nn.Module, value: Format, layout: Layout, example: Sequence[int] | None = None
    ) -> Self:
        """The layer with the settings and the bias of `dense` and the kernel `value`."""
        bias: Any = dense.bias
        return cls.made_of(value, layout, ConvOptions.of(dense), copied(bias), example).train(dense.training)

    @classmethod
    def from_conv(cls, conv: nn.Module, method: Any, ranks: Ranks | None, layout: str) -> Self:
        """Decompose a dense layer: `from_conv(conv, HOOI(), (16, 16, None), "o i h w -> o i (h w)")`.

        The weight of a transposed convolution has its inputs first: "i o h w -> o i (h w)".
        """
        return cls.decomposed(conv, method, ranks, layout)

    def to_dense(self) -> nn.Module:
        """The dense convolution that computes the same."""
        weight = self.weight.dense().detach()
        dense = self._like(weight.dtype)
        dense.weight = nn.Parameter(weight, self.weight.requires_grad)
        dense.bias = copied(self.bias)  # type: ignore[assignment]
        return dense.train(self.training)

    @abstractmethod
    def _like(self, dtype: torch.dtype) -> nn.Module:
        """A dense layer with these settings, on the meta device."""

    def planned(self) -> tuple[int, ...]:
        """(batch, in_channels, *lengths)."""
        return self.batch, self.in_channels, *self.lengths

    def check_input(self, x: Tensor) -> None:
        """Raise ShapeError unless `x` is a batch that the layer takes."""
        if x.ndim != self.order + 2 or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"the layer takes (batch, {self.in_channels}, {self.order} spatial axes), "
                f"but the input is {tuple(x.shape)}."
            )

    def extra_repr(self) -> str:
        """Settings, as torch prints them."""
        o = self.options
        last = (
            f"padding_mode={o.padding_mode}"
            if o.output_padding is None
            else f"output_padding={o.output_padding}"
        )
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={o.stride}, "
            f"padding={o.padding}, dilation={o.dilation}, groups={o.groups}, bias={self.bias is not None}, "
            f"{last}"
        )


def random_value(
    layout: Layout, format: str, rank: Ranks | None, params: int | None, std: float, like: Tensor
) -> Format:
    """Random factors with this rank, or as many as `params` allows, whose weight has deviation `std`."""
    if (rank is None) == (params is None):
        raise OptionError(f"rank={rank} and params={params} came.", "Give one of the two.")
    kind, shape = formats[format], layout.mode_shape
    ranks: Any = kind.ranks_within(shape, params) if params is not None else rank
    return scaled_to(kind.random(shape, ranks, like=like, std=std), std)


def check_sizes(channels: tuple[int, int], taps: Ints, groups: int) -> None:
    """Raise OptionError unless there are 1 to 3 axes with taps, and the groups divide the channels."""
    if len(taps) not in SPATIAL:
        raise OptionError(f"kernel_size {taps} has order {len(taps)}.", "Give 1, 2 or 3 numbers.")
    if min(*channels, *taps) < 1:
        raise OptionError(f"channels {channels} and kernel_size {taps} came.", "Give numbers of 1 or more.")
    if any(n % groups for n in channels):
        raise OptionError(
            f"{groups} groups do not divide {channels[0]} and {channels[1]} channels.", "Choose a divisor."
        )


def check_kernel(layout: Layout, groups: int, transposed: bool = False) -> None:
    """Raise LayoutError unless the layout fits a kernel with so many groups."""
    order = len(layout.weight) - 2
    begin = "i o h w" if transposed else "o i h w"
    if order not in SPATIAL:
        raise LayoutError(f'layout "{layout}" has no kernel axes of order 1 to 3.', f'Begin it as "{begin}".')
    outer, inner = (Role.IN, Role.OUT) if transposed else (Role.OUT, Role.IN)
    check_roles(layout, [(outer, Role.GROUP), (inner,), *[(Role.SPATIAL,)] * order], "a kernel")
    if wide := [g for g in layout.weight[2:] if len(g) > 1]:
        raise LayoutError(f'layout "{layout}" splits a spatial axis into {wide[0]}.', "Keep it in one piece.")
    first = layout.weight[0]
    shared = tuple(a for a in first if role(a) is Role.GROUP)
    shown = math.prod(layout.extent(shared))
    if first[: len(shared)] != shared or shown != groups:
        side, text = (
            ("inputs", f"(g={groups} i) o ...") if transposed else ("outputs", f"(g={groups} o) i ...")
        )
        raise LayoutError(
            f'layout "{layout}" shows {shown} groups, the convolution has {groups}.',
            f'Begin the {side} with an axis "g" of that size: "{text}".',
        )
