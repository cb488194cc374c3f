"""Stride, padding, dilation and bias of each of several convolutions."""

from itertools import product
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from tenfold.compat.tltorch.kernels import each
from tenfold.core.errors import OptionError
from tenfold.nn.convolution.options import ConvOptions


class LayerSettings:
    """The settings of one convolution, or of several, by index; read as arrays (*n_layers, order).

    The arrays are copies that cannot be written to, as writing would have no effect: `set` changes settings.
    """

    options: dict[tuple[int, ...], ConvOptions]
    layers_shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    order: int

    def _set_options(
        self,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        padding_mode: str,
        has_bias: Any,
        bias: bool,
    ) -> None:
        indices = list(product(*map(range, self.layers_shape)))
        asked = np.broadcast_to(
            bias if has_bias is None or has_bias is False else has_bias, self.layers_shape
        )
        self.has_bias = {index: bool(asked[index]) for index in indices}
        if any(self.has_bias.values()) and not bias:
            raise OptionError("has_bias came without bias=True.", "Give both, or bias=True for all layers.")
        self.options = {}
        for index in indices:
            one, two, three = (
                _entry(x, index, self.layers_shape, self.order) for x in (stride, padding, dilation)
            )
            self.options[index] = options_of(one, two, three, groups, padding_mode, self.order)

    def _widen(self, mode: int, stride: int, padding: int, dilation: int) -> None:
        """The settings with those of one more axis."""
        for index, o in self.options.items():
            if isinstance(o.padding, str) and (padding, stride) != (0, 1):
                raise OptionError(
                    f"padding={o.padding!r} is set.", "Give numbers for it first: layer.set(...)."
                )
            ends = o.padding if isinstance(o.padding, str) else _with(o.padding, mode, padding)
            self.options[index] = ConvOptions(
                _with(o.stride, mode, stride),
                ends,
                _with(o.dilation, mode, dilation),
                o.groups,
                o.padding_mode,
            )

    def _array(self, name: str) -> np.ndarray:
        rows = [getattr(o, name) for o in self.options.values()]
        found = np.array(rows).reshape((*self.layers_shape, self.order))
        found.setflags(write=False)
        return found

    @property
    def stride(self) -> np.ndarray:
        """Stride of each axis."""
        return self._array("stride")

    @property
    def dilation(self) -> np.ndarray:
        """Dilation of each axis."""
        return self._array("dilation")

    @property
    def padding(self) -> Any:
        """Padding of each axis, or the word that was given."""
        words = {o.padding for o in self.options.values() if isinstance(o.padding, str)}
        return words.pop() if words else self._array("padding")

    @property
    def groups(self) -> int:
        """Number of groups."""
        return next(iter(self.options.values())).groups

    @property
    def padding_mode(self) -> str:
        """How the input is padded."""
        return next(iter(self.options.values())).padding_mode

    def padded(self, x: Tensor, options: ConvOptions) -> tuple[Tensor, Any]:
        """The input as a dense convolution wants it, and the padding that is left to that."""
        if options.padding_mode == "zeros":
            return x, options.padding
        windows = options.windows(self.kernel_size, (1,) * self.order)
        ends = [n for w in windows[::-1] for n in (w.before, w.after)]
        return F.pad(x, ends, options.padding_mode), 0


def options_of(
    stride: Any, padding: Any, dilation: Any, groups: int, padding_mode: str, order: int
) -> ConvOptions:
    """Settings from ints, sequences or arrays."""
    ends = padding if isinstance(padding, str) else each(padding, order)
    return ConvOptions(each(stride, order), ends, each(dilation, order), groups, padding_mode)


def _entry(value: Any, index: tuple[int, ...], layers: tuple[int, ...], order: int) -> Any:
    """The value for one layer, of an array (*layers, order), or the value for all."""
    if isinstance(value, np.ndarray) and value.shape == (*layers, order):
        return tuple(int(n) for n in value[index])
    return value


def _with(numbers: tuple[int, ...], at: int, new: int) -> tuple[int, ...]:
    return (*numbers[:at], int(new), *numbers[at:])
