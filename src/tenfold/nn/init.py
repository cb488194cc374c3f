"""Initialisation of factorized tensors and layers, in place, by what it does to the weight that they make.

The names and arguments are those of `torch.nn.init`. There, entries of a weight are drawn; here, the factors
are drawn such that the entries of the weight have the mean and the deviation that torch's function gives.
Every draw meets the deviation exactly, and a mean other than 0 too, in every format and at all ranks: without
that, the deviation of a product of few random numbers would stray by tens of percent. An entry is a sum of
products, so that its distribution is normal for large ranks, and has longer tails for small ones; with
`uniform_` too, where entries may lie beyond the bounds.

Plain tensors, and layers with a plain weight, go to `torch.nn.init`, so that a loop may run over a model.
Biases are left alone. Parameters keep their identity, so that optimizers may exist already.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError, ShapeError, UnsupportedError
from tenfold.nn.embedding.table import FactorizedTable
from tenfold.nn.moments import Noise, constant_factors, with_moments
from tenfold.nn.tensor.factorized import FactorizedTensor

Target = TypeVar("Target", Tensor, nn.Module)
Generator = torch.Generator | None


def normal_(target: Target, mean: float = 0.0, std: float = 1.0, generator: Generator = None) -> Target:
    """Normal factors; the weight has this mean and deviation. Complex deviations are of the absolute value.

    >>> from tenfold.nn import FactorizedTensor
    >>> x = normal_(FactorizedTensor.new((8, 6, 5), 3, "tr"), std=0.1)
    >>> round(x.dense().std(correction=0).item(), 5)
    0.1
    """
    return _filled(target, _normal, mean, std, generator, nn.init.normal_)


def uniform_(target: Target, a: float = 0.0, b: float = 1.0, generator: Generator = None) -> Target:
    """Uniform factors; the weight has the mean and the deviation of the uniform distribution over [a, b]."""
    if not a <= b:
        raise OptionError(f"the bounds came as {a} and {b}.", "Give the lower one first.")
    weight = _weight(target)
    if not isinstance(weight, FactorizedTensor):
        nn.init.uniform_(weight, a, b, generator)
        return target
    return _filled(target, _uniform, (a + b) / 2, (b - a) / math.sqrt(12), generator, None)


def constant_(target: Target, value: float) -> Target:
    """A weight with the same number everywhere, whose factors can all be trained.

    Not so if all factors were constant or zero: ranks would stay equal to one another, or without gradient.
    """
    weight = _weight(target)
    if not isinstance(weight, FactorizedTensor):
        nn.init.constant_(weight, value)
        return target
    if weight.device.type == "meta":
        return target
    network = weight.value.network
    scale = (1 / (3 * _usual_fan(weight) * network.product(network.bonds))) ** (0.5 / len(network.factors))
    _set(weight, constant_factors(network, _noise(_normal, weight, None), value, scale))
    return target


def zeros_(target: Target) -> Target:
    """A weight of zeros that can be trained: the last factor is zero, the others are random, as in LoRA."""
    return constant_(target, 0.0)


def ones_(target: Target) -> Target:
    """A weight of ones, as `constant_`."""
    return constant_(target, 1.0)


def xavier_uniform_(target: Target, gain: float = 1.0, generator: Generator = None) -> Target:
    """The deviation gain sqrt(2 / (fan_in + fan_out)), by uniform factors. Source: Glorot & Bengio 2010."""
    bound = math.sqrt(3) * _xavier(target, gain)
    return uniform_(target, -bound, bound, generator)


def xavier_normal_(target: Target, gain: float = 1.0, generator: Generator = None) -> Target:
    """The deviation gain sqrt(2 / (fan_in + fan_out)), by normal factors. Source: Glorot & Bengio 2010."""
    return normal_(target, 0.0, _xavier(target, gain), generator)


def kaiming_uniform_(
    target: Target,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> Target:
    """The deviation gain / sqrt(fan), by uniform factors. Source: He et al. 2015, arXiv:1502.01852.

    >>> from tenfold.nn import FactorizedLinear
    >>> layer = kaiming_uniform_(FactorizedLinear(512, 64, rank=8), nonlinearity="relu")
    >>> round(layer.dense_weight().std(correction=0).item(), 5)
    0.0625
    """
    bound = math.sqrt(3) * _kaiming(target, a, mode, nonlinearity)
    return uniform_(target, -bound, bound, generator)


def kaiming_normal_(
    target: Target,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator = None,
) -> Target:
    """The deviation gain / sqrt(fan), by normal factors. Source: He et al. 2015, arXiv:1502.01852."""
    return normal_(target, 0.0, _kaiming(target, a, mode, nonlinearity), generator)


# Fans -----------------------------------------------------------------------------------------------------


def fans(target: Tensor | nn.Module) -> tuple[int, int]:
    """fan_in and fan_out of the weight, as torch counts them for the dense weight (out, in, *taps).

    That is the shape which the layout gives, not that of the factored tensor. As in torch, the outputs of all
    groups count, and a transposed convolution (in, out, *taps) is counted like one that is not transposed.

    Raises:
        ShapeError: for weights with fewer than two axes.

    >>> from tenfold.nn import FactorizedConv
    >>> fans(FactorizedConv(16, 32, (3, 3), rank=4, format="tt", layout="o i h w -> (o h) (i w)"))
    (144, 288)
    """
    shape = tuple(_weight(target).shape)
    if isinstance(target, FactorizedTable):
        shape = (target.num_embeddings, target.embedding_dim)
    if len(shape) < 2:
        raise ShapeError(f"a weight of shape {shape} has no fans.", "Give a standard deviation to normal_.")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def _xavier(target: Tensor | nn.Module, gain: float) -> float:
    return gain * math.sqrt(2 / max(1, sum(fans(target))))


def _kaiming(target: Tensor | nn.Module, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise OptionError(f"mode came as {mode!r}.", 'Choose "fan_in" or "fan_out".')
    fan = fans(target)[mode == "fan_out"]
    return nn.init.calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))  # type: ignore[arg-type]


def _usual_fan(weight: FactorizedTensor) -> int:
    return max(1, fans(weight)[0] if weight.ndim > 1 else 1)


# Factors --------------------------------------------------------------------------------------------------


def _weight(target: Tensor | nn.Module) -> Any:
    """The tensor that is to be filled: the target itself, or the weight of a layer."""
    weight = target if isinstance(target, Tensor | FactorizedTensor) else getattr(target, "weight", None)
    if not isinstance(weight, Tensor | FactorizedTensor):
        raise UnsupportedError(
            f"{type(target).__name__} has no weight that could be initialised.",
            "Give a tensor, or a layer with one weight; go through the layers of larger modules.",
        )
    return weight


def _filled(
    target: Target,
    draw: Callable[..., Tensor],
    mean: float,
    std: float,
    generator: Generator,
    dense: Callable[..., Any] | None,
) -> Target:
    if not (std >= 0 and math.isfinite(std) and math.isfinite(abs(mean))):
        raise OptionError(f"mean {mean} and std {std} came.", "Give finite numbers, and a std of 0 or more.")
    weight = _weight(target)
    if dense is not None and not isinstance(weight, FactorizedTensor):
        dense(weight, mean, std, generator)
        return target
    if std == 0:
        return constant_(target, mean)
    if isinstance(mean, complex) and not weight.dtype.is_complex:
        raise OptionError(f"the mean {mean} came for a weight of {weight.dtype}.", "Give a real number.")
    if weight.device.type != "meta":
        network = weight.value.network
        _set(weight, with_moments(network, _noise(draw, weight, generator), mean, std))
    return target


def _set(weight: FactorizedTensor, factors: list[Tensor]) -> None:
    value = weight.value
    weight.set_(type(value).from_network(value.network, factors, **value.static))


def _noise(draw: Callable[..., Tensor], weight: FactorizedTensor, generator: Generator) -> Noise:
    """Entries of mean 0 and variance 1, in double precision where the device of the weight has it."""
    dtype = torch.float32 if weight.device.type == "mps" else torch.float64

    def noise(shape: tuple[int, ...]) -> Tensor:
        if weight.dtype.is_complex:
            pair = draw((*shape, 2), dtype, weight.device, generator) / math.sqrt(2)
            return torch.view_as_complex(pair)
        return draw(shape, dtype, weight.device, generator)

    return noise


def _normal(shape: tuple[int, ...], dtype: torch.dtype, device: Any, generator: Generator) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device, generator=generator)


def _uniform(shape: tuple[int, ...], dtype: torch.dtype, device: Any, generator: Generator) -> Tensor:
    return (torch.rand(shape, dtype=dtype, device=device, generator=generator) * 2 - 1) * math.sqrt(3)
