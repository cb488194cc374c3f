"""The module that owns the factors of one weight as ordinary parameters."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tenfold.core.layout import Layout, rearrange
from tenfold.core.network import Axes, Axis, Network
from tenfold.core.program import Program, Stored
from tenfold.formats import Format, Ranks, formats
from tenfold.formats.base import array_fields
from tenfold.nn.execute import run
from tenfold.nn.memory import in_memory_order


class DenseFallbackWarning(UserWarning):
    """A factorized weight was made dense because the function that met it has no factorized form."""


class FactorizedTensor(nn.Module):
    """A weight held as factors, which are its parameters; `value` is the format over them.

    Each factor is stored as the layer's program wants it (`stored`), so that no weight is permuted when the
    layer runs; kernels of several taps are kept in channels-last memory, which convolutions run faster on.
    Functions that expect a tensor may be called with it: `F.linear` runs factor by factor, others get
    `dense()`.

    >>> x = FactorizedTensor.new((8, 6, 5), 3, "cp")
    >>> x.shape, [name for name, _ in x.named_parameters()]
    (torch.Size([8, 6, 5]), ['matrices_0', 'matrices_1', 'matrices_2'])
    >>> torch.allclose(torch.sum(x), x.dense().sum())
    True
    """

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
        for name, factor, own in zip(self.names, self._arranged(value.factors), value.factors, strict=True):
            self.register_parameter(
                name, nn.Parameter(factor, requires_grad=own.is_floating_point() or own.is_complex())
            )

    @classmethod
    def new(
        cls,
        shape: Sequence[int],
        rank: Ranks,
        factorization: str,
        *,
        std: float = 0.02,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random factors of the format called `factorization`; entries of the dense tensor have deviation
        `std`."""
        like = torch.empty((), device=device, dtype=dtype)
        return cls(formats[factorization].random(shape, rank, like=like, std=std))

    def factors(self) -> list[Tensor]:
        """The parameters as they are stored, in the order of the program."""
        own = self._parameters  # faster than getattr, which knows those too that are computed
        return [own[name] if name in own else getattr(self, name) for name in self.names]  # type: ignore[misc]

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

    def dense(self) -> Tensor:
        """The weight, contracted from its factors."""
        tensor = self.value.dense()
        return tensor if self.layout is None else self.layout.to_weight(tensor)

    def to_tensor(self) -> Tensor:
        """The weight, contracted from its factors: another name of `dense`."""
        return self.dense()

    def set_(self, value: Format) -> None:
        """Put new factors of the same shapes into the parameters, without recording gradients."""
        with torch.no_grad():
            for own, factor in zip(self.factors(), self._arranged(value.factors), strict=True):
                own.copy_(factor)

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

    def size(self, dim: int | None = None) -> Any:
        """Shape of the dense weight, or its size along `dim`."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> int:
        """Number of axes of the dense weight."""
        return len(self.shape)

    def dim(self) -> int:
        """Number of axes of the dense weight."""
        return self.ndim

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
        return f"{formats.name_of(self.format)}, shape={tuple(self.shape)}, ranks={self.ranks}{layout}"

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        for factor in self.factors():
            if not factor.is_meta:
                factor.data = in_memory_order(factor.data)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and isinstance(args[1], cls) and not isinstance(args[0], cls):
            weight = args[1]
            program = weight.program
            if program is not None and program.dimensions == 0 and not program.gathers:
                return run(program, args[0], weight.factors(), args[2] if len(args) > 2 else None)
        if any(isinstance(a, cls) and a.program is not None for a in (*args, *(kwargs or {}).values())):
            name = getattr(func, "__name__", func)
            warnings.warn(
                f"{name} makes a factorized weight dense at each call", DenseFallbackWarning, stacklevel=2
            )
        return func(*tree_map(_dense, args), **tree_map(_dense, kwargs or {}))


def _dense(x: Any) -> Any:
    return x.dense() if isinstance(x, FactorizedTensor) else x


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
