"""The module that owns the factors of one weight as ordinary parameters."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tenfold.core.errors import ShapeError
from tenfold.core.layout import Layout, rearrange
from tenfold.core.network import Axes, Axis, Network
from tenfold.core.program import Program, Stored
from tenfold.formats import Format, General, Ranks, formats
from tenfold.formats.base import array_fields
from tenfold.nn.execute import run
from tenfold.nn.memory import in_memory_order, laid_out
from tenfold.nn.moments import scaled_to
from tenfold.nn.tensor.acts import Noted, wired
from tenfold.nn.tensor.contract import Contraction, contract, contraction
from tenfold.nn.tensor.fallback import DenseFallbackWarning
from tenfold.nn.tensor.held import held
from tenfold.nn.tensor.view import TensorLike

__all__ = ["DenseFallbackWarning", "FactorizedTensor"]


class FactorizedTensor(TensorLike, nn.Module):
    """A weight held as factors, which are its parameters; `value` is the format over them.

    Each factor is stored as the layer's program wants it (`stored`), so that no weight is permuted when the
    layer runs; kernels of several taps are kept in channels-last memory, which convolutions run faster on.
    Slices and sums of it stay factorized, and functions of torch may be called with it: see `TensorLike`.

    >>> x = FactorizedTensor.new((8, 6, 5), 3, "cp")
    >>> x.shape, [name for name, _ in x.named_parameters()]
    (torch.Size([8, 6, 5]), ['matrices_0', 'matrices_1', 'matrices_2'])
    >>> torch.allclose(torch.sum(x), x.dense().sum())
    True
    >>> x[2:, [0, 1]]
    FactorizedView(CP, shape=(6, 2, 5), ranks={'R': 3})
    """

    computed: ClassVar[frozenset[str]] = frozenset()
    """Names of factors that are no parameters but made of such."""

    def __init__(self, value: Format, layout: Layout | None = None, program: Program | None = None) -> None:
        super().__init__()
        self.format: type[Format] = type(value)
        self.layout = layout
        self.program = program
        network = value.network
        self.network = network if layout is None else network.refined(layout.mode_groups)
        self.shapes = network.shapes
        self.missing = tuple(f is None for f in value.slots)
        self.static = value.static
        self.names = tuple(_names(value))
        self.stored = program.stored if program else _as_is(self.network)
        self.wiring = wired(value, layout, self.network, self.stored)
        for name, factor, own in zip(self.names, self._arranged(value.factors), value.factors, strict=True):
            self._keep(name, factor, own.is_floating_point() or own.is_complex())

    def _keep(self, name: str, factor: Tensor, trained: bool) -> None:
        """Register a factor, in the order in which it is stored, as a parameter."""
        self.register_parameter(name, nn.Parameter(factor, requires_grad=trained))

    @classmethod
    def new(
        cls,
        shape: Sequence[int],
        rank: Ranks,
        factorization: str,
        *,
        layout: str | Layout | None = None,
        std: float = 0.02,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random factors of the format called `factorization`; the entries of the dense tensor have exactly
        the deviation `std`. With a layout, such as "(o0=4 o1) i -> o0 (o1 i)", it says what is factored.

        Raises:
            UnknownNameError, RankError, ShapeError, LayoutError: for what cannot be.
        """
        bound = _bound(layout, shape)
        like = torch.empty((), device=device, dtype=dtype)
        modes = tuple(shape) if bound is None else bound.mode_shape
        return cls(scaled_to(formats[factorization].random(modes, rank, like=like, std=std), std), bound)

    @classmethod
    def from_tensor(
        cls,
        tensor: Tensor,
        method: Callable[..., Any],
        ranks: Ranks | None = None,
        *,
        layout: str | Layout | None = None,
    ) -> Self:
        """The factors that a method of decomposition finds, in the dtype and on the device of `tensor`.

        `method(tensor, ranks).value` is the format: `from_tensor(x, HOOI(), (4, 4, None))`. The factors are
        parameters of their own; no gradient flows to `tensor`.

        >>> from tenfold.decompose import TTSVD
        >>> x = torch.ones(4, 5, 6)
        >>> FactorizedTensor.from_tensor(x, TTSVD(), 1)
        FactorizedTensor(tt, shape=(4, 5, 6), ranks={'R1': 1, 'R2': 1})
        """
        bound = _bound(layout, tensor.shape)
        source = tensor.detach()
        value = method(source if bound is None else bound.to_modes(source), ranks).value
        kept = tensor.is_floating_point() or tensor.is_complex()
        return cls(value.map(lambda f: f.to(tensor.dtype)) if kept else value, bound)

    def factors(self) -> list[Tensor]:
        """The parameters as they are stored, in the order of the program."""
        return held(self, self.names)

    @property
    def value(self) -> Format:
        """The format over the parameters, in the literature's order of axes: views, differentiable."""
        sizes = self.network.size_of
        feed: Iterator[Tensor] = iter(
            rearrange(f, s.axes, axes, sizes, shape)
            for f, s, axes, shape in zip(
                self.factors(), self.stored, self.network.factors, self.shapes, strict=True
            )
        )
        return self.format.from_factors(
            [None if absent else next(feed) for absent in self.missing], **self.static
        )

    def noted(self) -> Noted:
        """The factors as they are stored."""
        return Noted(tuple(self.factors()), ("factors", (self.wiring,), ()))

    def dense(self) -> Tensor:
        """The weight, contracted from its factors."""
        factors = self.factors()
        mixed = any(f.dtype != factors[0].dtype for f in factors)
        if mixed or len(factors) == 1 or type(self).value is not FactorizedTensor.value:
            return super().dense()
        return contract(self._contraction(self.wiring), factors).reshape(self.shape)

    @torch.compiler.assume_constant_result
    def _contraction(self, wiring: str) -> Contraction:
        """The plan, made when it is first asked for; compiled code holds it, and a guard on the wiring."""
        outputs = self.layout.axes if self.layout else self.network.modes
        return contraction(self.network, self.stored, outputs)

    def set_(self, value: Format) -> None:
        """Put new factors of the same shapes into the parameters, without recording gradients.

        An optimizer that has the parameters keeps them.

        Raises:
            ShapeError: for factors of other shapes; nothing is changed then.
        """
        self._check_shapes(value)
        with torch.no_grad():
            for own, factor in zip(self.factors(), self._arranged(value.factors), strict=True):
                own.copy_(factor)

    def _check_shapes(self, value: Format) -> None:
        if value.network.shapes != self.shapes:
            raise ShapeError(
                f"factors came with shapes {value.network.shapes}, the parameters have {self.shapes}.",
                "Give the ranks of this tensor, or make a new one.",
            )

    def _arranged(self, factors: Sequence[Tensor]) -> list[Tensor]:
        """Factors brought from the format's order to the stored one."""
        sizes = self.network.size_of
        return [
            in_memory_order(rearrange(f.detach(), axes, s.axes, sizes, s.shape))
            for f, axes, s in zip(factors, self.network.factors, self.stored, strict=True)
        ]

    @property
    def shape(self) -> torch.Size:
        """Shape of the dense weight."""
        return torch.Size(self.layout.shape if self.layout else self.network.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the factors."""
        return self.factors()[0].dtype

    @property
    def device(self) -> torch.device:
        """Device of the factors."""
        return self.factors()[0].device

    @property
    def requires_grad(self) -> bool:
        """Whether any factor is trained."""
        return any(f.requires_grad for f in self.factors())

    @property
    def ranks(self) -> dict[Axis, int]:
        """Bond -> size."""
        return self.network.ranks

    def numel(self) -> int:
        """Number of stored elements."""
        return self.network.numel

    def extra_repr(self) -> str:
        """Format, shape and ranks."""
        layout = f', layout="{self.layout}"' if self.layout else ""
        return f"{_called(self.format)}, shape={tuple(self.shape)}, ranks={self.ranks}{layout}"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        for factor in self.factors():
            if not factor.is_meta:
                factor.data = laid_out(factor.data)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """`F.linear` with this weight, by the program of its layer where that is a linear one."""
        program = self.program
        if program is not None and program.dimensions == 0 and not program.gathers:
            return run(program, x, self.factors(), bias)
        return super().linear(x, bias)


def _bound(layout: str | Layout | None, shape: Sequence[int]) -> Layout | None:
    """The layout with all sizes."""
    if layout is None:
        return None
    return (Layout.parse(layout) if isinstance(layout, str) else layout).bind(shape, "the tensor")


def _called(kind: type[Format]) -> str:
    """Name of a format; general networks are not registered."""
    return "general" if kind is General else formats.name_of(kind)


def _names(value: Format) -> Iterator[str]:
    """Names of the parameters: the fields of the format, numbered where a field holds several factors."""
    for field in array_fields(type(value)):
        held = getattr(value, field)
        if isinstance(held, tuple):
            yield from (f"{field}_{k}" for k, f in enumerate(held) if f is not None)
        else:
            yield field


def _as_is(network: Network) -> tuple[Stored, ...]:
    def alone(axes: Axes) -> Stored:
        return Stored(tuple((a,) for a in axes), network.extent(axes))

    return tuple(alone(axes) for axes in network.factors)
