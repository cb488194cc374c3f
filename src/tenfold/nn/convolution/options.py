"""The settings of a convolution, ordinary or transposed, that its weight does not show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.search import Window

Ints = tuple[int, ...]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class ConvOptions:
    """The settings of a convolution that its weight does not show; names and meaning are torch's.

    `output_padding` is that of a transposed convolution, and None for an ordinary one.
    """

    stride: Ints
    padding: Ints | str
    dilation: Ints
    groups: int
    padding_mode: str = "zeros"
    output_padding: Ints | None = None

    def __post_init__(self) -> None:
        if self.padding_mode not in PADDING_MODES:
            known = ", ".join(PADDING_MODES)
            raise OptionError(f"padding_mode came as {self.padding_mode!r}.", f"Choose one of {known}.")
        if isinstance(self.padding, str) and self.padding not in ("same", "valid"):
            raise OptionError(f"padding came as {self.padding!r}.", 'Give numbers, "same" or "valid".')
        if self.padding == "same" and max(self.stride) > 1:
            raise OptionError('padding="same" is defined for stride 1 only.', "Give the padding in numbers.")
        for name, numbers, least in self._numbers():
            if min(numbers) < least:
                raise OptionError(f"{name} came as {numbers}.", f"Give {least} or more.")
        if self.output_padding is not None:
            self._check_transposed(self.output_padding)

    def _numbers(self) -> list[tuple[str, Ints, int]]:
        """Name, values and least value of the settings that are numbers."""
        padding = (0,) if isinstance(self.padding, str) else self.padding
        return [
            ("stride", self.stride, 1),
            ("padding", padding, 0),
            ("dilation", self.dilation, 1),
            ("groups", (self.groups,), 1),
            ("output_padding", self.output_padding or (0,), 0),
        ]

    def _check_transposed(self, ends: Ints) -> None:
        if self.padding_mode != "zeros":
            raise OptionError(
                f"padding_mode came as {self.padding_mode!r}.", 'Transposed convolutions have "zeros" only.'
            )
        if isinstance(self.padding, str):
            raise OptionError(f"padding came as {self.padding!r}.", "Give numbers: the layer is transposed.")
        limits = [max(pair) for pair in zip(self.stride, self.dilation, strict=True)]
        if any(n >= limit for n, limit in zip(ends, limits, strict=True)):
            raise OptionError(
                f"output_padding came as {ends}, with stride {self.stride} and dilation {self.dilation}.",
                "Give numbers below the stride or the dilation.",
            )

    @staticmethod
    def of(conv: Any) -> "ConvOptions":
        """The settings of a dense convolution, ordinary or transposed."""
        return ConvOptions(
            tuple(conv.stride),
            conv.padding if isinstance(conv.padding, str) else tuple(conv.padding),
            tuple(conv.dilation),
            conv.groups,
            conv.padding_mode,
            tuple(conv.output_padding) if conv.transposed else None,
        )

    def windows(self, taps: Ints, lengths: Ints) -> tuple[Window, ...]:
        """How each spatial axis slides, or is transposed."""
        transposed = self.output_padding is not None
        ends = [self._ends(k, t) for k, t in enumerate(taps)]
        return tuple(
            Window(s, before, after, d, n, self.padding_mode, transposed)
            for s, (before, after), d, n in zip(self.stride, ends, self.dilation, lengths, strict=True)
        )

    def _ends(self, k: int, taps: int) -> tuple[int, int]:
        """Padding before and after, with torch's convention for "same": the odd one goes after.

        Of a transposed axis what is cut off: less at its end where there is an output padding.
        """
        if self.padding == "same":
            total = self.dilation[k] * (taps - 1)
            return total // 2, total - total // 2
        if self.padding == "valid":
            return 0, 0
        cut = int(self.padding[k])
        return cut, cut - (self.output_padding[k] if self.output_padding else 0)


@dataclass(frozen=True)
class OutputPadding:
    """How much longer a transposed convolution makes its output, so that it has the size that is asked for.

    >>> ends = OutputPadding((2,), (1,), (1,), (3,))
    >>> ends((8, 16, 10), (20,)), ends((8, 16, 10), None)
    ((1,), None)
    """

    stride: Ints
    padding: Ints
    dilation: Ints
    taps: Ints

    @staticmethod
    def of(options: ConvOptions, taps: Ints) -> "OutputPadding":
        """For a transposed convolution with these settings and numbers of taps."""
        assert not isinstance(options.padding, str)
        return OutputPadding(options.stride, options.padding, options.dilation, taps)

    def __call__(self, shape: Sequence[int], output_size: Sequence[int] | None) -> tuple[int, ...] | None:
        """One number for each spatial axis of an input of this shape; None where no size is asked for.

        `output_size` has the spatial axes, or all axes of the output, as torch takes it.

        Raises:
            ShapeError: if the sizes are too many or too few, or not within one stride of the least.
        """
        if output_size is None:
            return None
        order = len(self.taps)
        if len(output_size) not in (order, len(shape)):
            raise ShapeError(
                f"output_size has {len(output_size)} numbers.",
                f"Give {order}, one for each spatial axis, or {len(shape)}, one for each axis of the output.",
            )
        wanted, lengths = output_size[-order:], shape[-order:]
        least = [self._least(k, n) for k, n in enumerate(lengths)]
        if any(not n <= w < n + s for w, n, s in zip(wanted, least, self.stride, strict=True)):
            most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
            raise ShapeError(
                f"output_size asks for {list(wanted)} of an input of size {list(lengths)}.",
                f"Give sizes from {least} to {most}.",
            )
        return tuple(w - n for w, n in zip(wanted, least, strict=True))

    def _least(self, k: int, length: int) -> int:
        """The size of the output without any output padding."""
        reach = self.dilation[k] * (self.taps[k] - 1) + 1
        return (length - 1) * self.stride[k] - 2 * self.padding[k] + reach


def each(value: int | Sequence[int], order: int) -> Ints:
    """A number for each spatial axis; raises OptionError if another count came.

    >>> each(2, 3), each([1, 2], 2)
    ((2, 2, 2), (1, 2))
    """
    numbers = (value,) * order if isinstance(value, int) else tuple(value)
    if len(numbers) != order:
        raise OptionError(
            f"{numbers} came for {order} spatial axes.", "Give one number, or one for each axis."
        )
    return numbers
