"""Tensor dropout: whole ranks of a factorized weight are left out at random in training."""

import math
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from tenfold.core.errors import OptionError, SelectionError
from tenfold.core.network import Axis
from tenfold.formats import Format
from tenfold.nn.bonds.numbers import BondTensor, put_on, take_off
from tenfold.nn.tensor.factorized import FactorizedTensor
from tenfold.nn.tensor.seen import Seen

Target = TypeVar("Target", bound=nn.Module)


class DroppedTensor(BondTensor):
    """A tensor with dropout on its bonds; `tensor_dropout` puts it on.

    In training `factors()`, which layers call once in each forward pass, has random ranks at zero, and so
    have products of matrices, functions of torch, slices and sums, each drawn anew. `value` and `dense()` are
    always those of the weight itself.
    """

    order = 1
    drops: tuple[tuple[Axis, int, int, float], ...]
    """Of each bond: its size, how many ranks stay at least, and the chance of each to stay."""
    settings: tuple[float, int, int]
    """p, min_dim and min_values."""

    def factors(self) -> list[Tensor]:
        """The factors as they are stored; in training with the ranks left out that are drawn."""
        factors = super().factors()
        return self.passed(factors, self.drawn(factors[0])) if self.training else factors

    def drawn(self, like: Tensor) -> dict[Axis, Float[Tensor, " rank"]]:
        """Bond -> 0 or 1 / chance for each rank; the mean is 1."""
        dtype = like.real.dtype if like.is_complex() else like.dtype
        return {
            bond: (stays(size, self.settings[0], least, like.device) / chance).to(dtype)
            for bond, size, least, chance in self.drops
        }

    def sampled(self) -> FactorizedTensor:
        """The tensor with the ranks that are drawn now; in evaluation the tensor without dropout."""
        if not self.training:
            return self.beneath(DroppedTensor)
        view = object.__new__(FactorizedTensor)
        arrays = dict(zip(self.names, self.factors(), strict=True))
        object.__setattr__(view, "__dict__", vars(self) | {"_parameters": arrays})
        return view

    @property
    def seen(self) -> Seen:
        """What products and functions of torch act on: in training with the ranks left out that are drawn."""
        return Seen(self.sampled().value, self.layout)

    @property
    def value(self) -> Format:
        """The format over the parameters, without dropout."""
        return self.beneath(DroppedTensor).value

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the factors."""
        return self.plain.dtype

    @property
    def device(self) -> torch.device:
        """Device of the factors."""
        return self.plain.device

    @property
    def requires_grad(self) -> bool:
        """Whether any factor is trained."""
        return self.beneath(DroppedTensor).requires_grad

    def set_(self, value: Format) -> None:
        """Put new factors of the same shapes into the parameters, without recording gradients."""
        self.beneath(DroppedTensor).set_(value)

    def __matmul__(self, other: Any) -> Any:
        """The product of matrices, with dropout in training."""
        return self.sampled() @ other

    def __rmatmul__(self, other: Any) -> Any:
        """The product of matrices, with dropout in training."""
        return other @ self.sampled()

    def extra_repr(self) -> str:
        """What the tensor says of itself, and p."""
        return f"{super().extra_repr()}, dropout={self.settings[0]}"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*tree_map(_sampled, args), **tree_map(_sampled, kwargs or {}))


def tensor_dropout(target: Target, p: float, min_dim: int = 1, min_values: int = 1) -> Target:
    """Put dropout on the bonds of factorized weights, in place; returns `target`.

    `target` is a FactorizedTensor, a layer, or a whole model, of which all factorized weights get dropout. In
    each forward pass in training every rank of a bond stays with probability 1 - p, and `min_values` stay
    in any case; bonds of `min_dim` ranks or fewer are left alone. What stays is divided by the chance that a
    rank has to stay, so that the weight keeps its mean: that is 1 - p, and a little more on short bonds,
    where it counts that some stay in any case. With p = 1 just `min_values` ranks stay. In evaluation nothing
    is changed. Parameters and states keep their names; a second call changes the settings.

    Weights that several layers share are drawn anew for each.

    Source: Kolbeinsson, Kossaifi, Panagakis, Bulat, Anandkumar, Tzoulaki, Matthews, 'Tensor dropout for
    robust learning', 2021, arXiv:1902.10758.

    Raises:
        OptionError: unless 0 <= p <= 1, min_dim >= 0 and min_values >= 1.
        SelectionError: if there is no factorized weight.

    >>> from tenfold.nn import FactorizedLinear
    >>> layer = tensor_dropout(FactorizedLinear(20, 10, rank=4), p=0.5)
    >>> x = torch.ones(1, 20)
    >>> torch.equal(layer(x), layer(x)), torch.equal(layer.eval()(x), layer(x))
    (False, True)
    """
    _check(p, min_dim, min_values)
    found = [m for m in target.modules() if isinstance(m, FactorizedTensor)]
    if not found:
        raise SelectionError(f"{type(target).__name__} has no factorized weight.", "Factorize it first.")
    for tensor in found:
        drops = tuple(
            (b, n, min(min_values, n), chance_to_stay(n, p, min(min_values, n)))
            for b, n in tensor.ranks.items()
            if n > min_dim and p > 0
        )
        vars(tensor).update(settings=(float(p), min_dim, min_values), drops=drops)
        put_on(DroppedTensor, tensor)
    return target


def remove_tensor_dropout(target: Target) -> Target:
    """Take the dropout off all weights, in place; returns `target`.

    Raises:
        SelectionError: if there is no weight with dropout.
    """
    found = [m for m in target.modules() if isinstance(m, DroppedTensor)]
    if not found:
        raise SelectionError(f"{type(target).__name__} has no weight with dropout.", "Nothing is to be done.")
    for tensor in found:
        take_off(DroppedTensor, tensor)
        del tensor.settings, tensor.drops
    return target


def resting(tensor: FactorizedTensor) -> FactorizedTensor:
    """The tensor as it is in evaluation, without dropout, in whatever mode it is: for exports."""
    return tensor.beneath(DroppedTensor) if isinstance(tensor, DroppedTensor) else tensor


def stays(size: int, p: float, least: int, device: torch.device) -> Tensor:
    """Which ranks stay: each with probability 1 - p, and at least so many."""
    u = torch.rand(size, device=device)
    return u >= u.topk(least).values[-1].clamp_max(p)


def chance_to_stay(size: int, p: float, least: int) -> float:
    """The probability with which a rank stays if at least so many stay.

    If n of them would stay, which is binomial, max(n, least) do; all ranks have the same share in that:

        E[max(n, least)] / size = 1 - p + sum over n < least of (least - n) P(n) / size

    >>> chance_to_stay(2, 0.5, 1), chance_to_stay(5, 1.0, 2), chance_to_stay(64, 0.5, 1)
    (0.625, 0.4, 0.5)
    """
    missing = sum((least - n) * _binomial(size, n, 1 - p) for n in range(least))
    return 1 - p + missing / size


def _binomial(size: int, n: int, q: float) -> float:
    """The probability of n successes of `size`, each of probability q."""
    if q in (0.0, 1.0):
        return float(n == size * q)
    ways = math.lgamma(size + 1) - math.lgamma(n + 1) - math.lgamma(size - n + 1)
    return math.exp(ways + n * math.log(q) + (size - n) * math.log1p(-q))


def _sampled(x: Any) -> Any:
    return x.sampled() if isinstance(x, DroppedTensor) else x


def _check(p: float, min_dim: int, min_values: int) -> None:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise OptionError(f"p came as {p!r}.", "Give a probability from 0 to 1.")
    for name, value, least in (("min_dim", min_dim, 0), ("min_values", min_values, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise OptionError(f"{name} came as {value!r}.", f"Give a whole number from {least}.")
