"""Complex factors kept as pairs of reals, for all that knows real parameters only."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.core.layout import Layout
from tenfold.core.program import Program
from tenfold.formats import Format, Ranks
from tenfold.nn.base import FactorizedLayer
from tenfold.nn.tensor.factorized import FactorizedTensor
from tenfold.nn.tensor.held import held
from tenfold.nn.tensor.tensorized import TensorizedTensor


class ComplexPairs(FactorizedTensor):
    """A complex tensor in any format, whose parameters are real: (..., 2), the real and the imaginary parts.

    Native complex parameters work wherever torch alone is; distributed training (DDP, NCCL) and several
    optimizers want real ones. Gradients are the same numbers: that of a pair is the pair of torch's complex
    gradient. A state with native complex factors can be loaded.

    Source: the complex tensors of TensorLy-Torch (Kossaifi et al.), one mechanism for all formats.

    >>> x = ComplexPairs.new((8, 6, 5), 3, "tt")
    >>> x.dtype, x.dense().dtype, {p.dtype for p in x.parameters()}
    (torch.complex64, torch.complex64, {torch.float32})
    >>> [tuple(p.shape) for p in x.parameters()]
    [(8, 3, 2), (3, 6, 3, 2), (3, 5, 2)]
    """

    def __init__(self, value: Format, layout: Layout | None = None, program: Program | None = None) -> None:
        if not value.dtype.is_complex:
            raise OptionError(
                f"{type(self).__name__} came with factors of {value.dtype}.",
                "Give complex ones, or take FactorizedTensor.",
            )
        super().__init__(value, layout, program)

    @classmethod
    def new(
        cls,
        shape: Sequence[Any],
        rank: Ranks,
        factorization: str,
        *,
        layout: str | Layout | None = None,
        std: float = 0.02,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Random factors, as `FactorizedTensor.new`; the default dtype is the complex one of torch's."""
        kind = torch.get_default_dtype().to_complex() if dtype is None else dtype
        return super().new(shape, rank, factorization, layout=layout, std=std, device=device, dtype=kind)

    @classmethod
    def of(cls, plain: FactorizedTensor) -> Self:
        """The same tensor, layout and program, with copies of the factors as pairs."""
        pairs = cls(plain.value, plain.layout, plain.program)
        return pairs.requires_grad_(plain.requires_grad).train(plain.training)

    def _keep(self, name: str, factor: Tensor, trained: bool) -> None:
        self.register_parameter(name, nn.Parameter(torch.view_as_real(factor), requires_grad=trained))

    def factors(self) -> list[Tensor]:
        """The factors as complex tensors, in the order of the program: views of the parameters."""
        return [as_complex(pair) for pair in self.pairs()]

    def pairs(self) -> list[Tensor]:
        """The parameters: real, with an axis of size 2 at the end."""
        return held(self, self.names)

    def set_(self, value: Format) -> None:
        """Put new complex factors of the same shapes into the pairs, without recording gradients."""
        self._check_shapes(value)
        with torch.no_grad():
            for pair, factor in zip(self.pairs(), self._arranged(value.factors), strict=True):
                pair.copy_(torch.view_as_real(factor.to(as_complex(pair).dtype)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Complex factors come in as pairs."""
        for key in (f"{prefix}{name}" for name in self.names):
            if key in state_dict and state_dict[key].is_complex():
                state_dict[key] = torch.view_as_real(state_dict[key].resolve_conj())
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)


class TensorizedPairs(ComplexPairs, TensorizedTensor):
    """A complex tensorized matrix, or a stack of them, whose parameters are pairs of reals.

    >>> x = TensorizedPairs.new(((4, 3), (2, 5)), 3, "tt")
    >>> x.shape, x.dtype, x[2, :].dtype, {p.dtype for p in x.parameters()}
    (torch.Size([12, 10]), torch.complex64, torch.complex64, {torch.float32})
    """


def as_complex(pair: Tensor) -> Tensor:
    """(..., 2) as complex numbers: a view where the pairs lie together in memory."""
    steps = pair.stride()
    together = steps[-1] == 1 and not any(s % 2 for s in steps[:-1])
    odd = not torch.compiler.is_compiling() and pair.storage_offset() % 2
    if odd or not together:
        pair = pair.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(pair)


class PairedBias(FactorizedLayer):
    """A layer whose complex bias is kept as a pair too: the class that `in_pairs_` gives to such layers."""

    kind: ClassVar[type[FactorizedLayer]]
    bias_pairs: nn.Parameter

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """The bias as a complex tensor."""
        return as_complex(self.bias_pairs)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _blank, (self.kind,), vars(self)


@lru_cache(maxsize=256)
def paired(kind: type[FactorizedLayer]) -> type[FactorizedLayer]:
    """The class of layers like `kind` with a pair for a bias."""
    return type(f"Paired{kind.__name__}", (PairedBias, kind), {"kind": kind})


def _blank(kind: type[FactorizedLayer]) -> FactorizedLayer:
    """An empty layer, for a copy to fill."""
    layer: FactorizedLayer = object.__new__(paired(kind))
    return layer


def in_pairs_(model: nn.Module) -> nn.Module:
    """Turn every complex factorized tensor of a model, alone or in a layer, into pairs of reals, in place.

    Layers take and give complex tensors as before. Make optimizers afterwards: the parameters are new ones.
    Tensors that several layers share stay shared. Real tensors, and dense layers, are left as they are.

    Raises:
        UnsupportedError: for complex tensors with gates or dropout, and those that share factors with others;
            nothing is changed then.

    >>> from tenfold.nn import FactorizedLinear
    >>> layer = in_pairs_(FactorizedLinear(6, 4, rank=2, dtype=torch.complex64))
    >>> layer(torch.ones(3, 6, dtype=torch.complex64)).dtype, {p.dtype for p in layer.parameters()}
    (torch.complex64, {torch.float32})
    """
    tensors = [m for m in model.modules() if isinstance(m, FactorizedTensor) and m.dtype.is_complex]
    if others := [t for t in tensors if not isinstance(t, ComplexPairs) and type(t) not in PLAIN]:
        raise UnsupportedError(
            f"a complex {type(others[0]).__name__} cannot be turned into pairs of reals.",
            "Do so before gates, dropout or a joint factorization are put on it.",
        )
    made = {t: _pairs_of(t) for t in tensors if type(t) in PLAIN}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FactorizedTensor) and child in made:
                setattr(module, name, made[child])
        if isinstance(module, FactorizedLayer):
            _pair_bias(module)
    return made.get(model, model) if isinstance(model, FactorizedTensor) else model


PLAIN = (FactorizedTensor, TensorizedTensor)


def _pairs_of(tensor: FactorizedTensor) -> ComplexPairs:
    return (TensorizedPairs if isinstance(tensor, TensorizedTensor) else ComplexPairs).of(tensor)


def _pair_bias(layer: FactorizedLayer) -> None:
    """Keep a complex bias as a pair."""
    bias = layer._parameters.get("bias")
    if bias is None or not bias.is_complex():
        return
    del layer._parameters["bias"]
    layer.__class__ = paired(type(layer))
    pair = torch.view_as_real(bias.detach()).clone()
    layer.register_parameter("bias_pairs", nn.Parameter(pair, bias.requires_grad))
