"""Random factors of a network such that the tensor which they make has a mean and a standard deviation.

Every factor is c e + s g: e is 1 on its *path*, the entries where all of its bonds are at index 0, and g is
noise. The paths alone make the constant tensor cⁿ. The noise is such that it adds nothing to the mean: that
of a factor with modes of its own is centred over them, so that their average is 0 off the path, and a factor
without any has no noise where its bonds to such factors are all at index 0. Then s is chosen such that the
tensor which came out has the deviation exactly. That holds at rank 1 too, where no component could be kept
for the mean alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tenfold.core.errors import OptionError
from tenfold.core.network import Axes, Axis, Network, components
from tenfold.formats.base import Format, General
from tenfold.formats.contracting import contracted

Factors = list[Tensor]
Noise = Callable[[tuple[int, ...]], Tensor]
"""Independent entries of mean 0 and variance 1."""


def with_moments(network: Network, noise: Noise, mean: complex, std: float) -> Factors:
    """Factors whose tensor has the deviation `std` exactly, and a mean other than 0 too.

    With mean 0 nothing is centred, and the average over the entries strays by about std / sqrt(numel), as
    with independent entries. Deviations are about the average over the entries.

    Raises:
        OptionError: if the network has too few entries to have a deviation about a mean.
    """
    drawn = [noise(shape) for shape in network.shapes]
    if mean == 0:
        return _times(drawn, _scale_without_mean(network, drawn, std))
    return _solved(network, without_average(network, drawn), mean, std)


PIECE = 1 << 20
"""Entries of a tensor that are made dense at a time."""

MANY = 1 << 22
"""Entries of a tensor above which it is never made dense, not even in pieces."""


def _times(factors: Sequence[Tensor], scale: float) -> Factors:
    return [f * scale for f in factors]


def _scale_without_mean(network: Network, drawn: Factors, std: float) -> float:
    """s = (std / what the noise has)^(1/n)."""
    found = deviation(network, drawn)
    if not found > 0:  # a single entry
        found = math.sqrt(_sums(General(tuple(drawn), network.factors))[1])
    return float((std / found) ** (1 / len(drawn))) if found > 0 else 1.0


def scaled_to(value: Format, std: float) -> Format:
    """Random factors scaled such that this tensor has the deviation, not only others like it on average.

    That of a single draw strays: for CP of order 8 with rank 2 and digits of size 2 by a factor of ten.
    On the meta device, and where nothing can be scaled, the factors as they came.

    >>> from tenfold.formats import CP
    >>> x = scaled_to(CP.random((2,) * 8, 2, like=torch.zeros(()), generator=0), 0.1)
    >>> round(float(x.dense().std(correction=0)), 5)
    0.1
    """
    factors = [f.detach().to(torch.promote_types(f.dtype, torch.float32)) for f in value.factors]
    if factors[0].is_meta or not (found := deviation(value.network, factors)) > 0:
        return value
    scale = (std / found) ** (1 / len(factors))
    return value.map(lambda f: f * scale)


def deviation(network: Network, factors: Factors) -> float:
    """Standard deviation of the entries about their average."""
    count = math.prod(network.shape)
    total, squares = _sums(General(tuple(factors), network.factors))
    square, mean = squares / count, total / count
    variance = square - abs(mean) ** 2
    return math.sqrt(variance) if variance > 1e-14 * square else 0.0


def _sums(value: General) -> tuple[complex, float]:
    """The sum of all entries, and that of their squares.

    Small tensors are made dense, and larger ones piece by piece, which plans sooner than an inner product of
    many factors; of few factors, or of very many entries, the inner product is cheaper.
    """
    double = torch.complex128 if value.dtype.is_complex else torch.float64
    if value.factors[0].device.type == "mps":
        double = value.dtype
    count = math.prod(value.shape)
    if count > MANY or (count > PIECE and len(value.factors) <= 3):
        value = value.map(lambda f: f.to(double))
        return complex(contracted(value.network, value.factors, ())), float(value.norm()) ** 2
    total, squares = 0j, 0.0
    for piece in _pieces(value, 0):
        total += complex(piece.sum(dtype=double))
        squares += float(torch.linalg.vector_norm(piece.to(double))) ** 2
    return total, squares


def _pieces(value: Any, axis: int) -> Iterator[Tensor]:
    """The tensor in dense pieces of at most `PIECE` entries, cut along its axes from the first on."""
    count = math.prod(value.shape)
    if count <= PIECE or axis == len(value.shape):
        yield value.dense()
        return
    n = value.shape[axis]
    step = max(1, PIECE * n // count)
    for start in range(0, n, step):
        yield from _pieces(value[(slice(None),) * axis + (slice(start, start + step),)], axis + 1)


def path(axes: Axes, network: Network) -> tuple[int | slice, ...]:
    """The index of a factor's path."""
    return tuple(slice(None) if a in network.modes else 0 for a in axes)


def _own_modes(k: int, network: Network) -> Axes:
    """The modes that only factor k carries."""
    return tuple(
        a for a in network.factors[k] if a in network.modes and sum(a in f for f in network.factors) == 1
    )


def without_average(network: Network, noise: Factors) -> Factors:
    """Noise that leaves the average of the tensor to the paths.

    The average is a sum over the bonds of products of the factors' averages over their modes. Where a factor
    is centred, its average is 0 off the path: all of its bonds are *settled* at index 0. Another one, without
    noise where its settled bonds are at index 0, settles those that remain.
    """
    own = [_own_modes(k, network) for k in range(len(noise))]
    found = list(noise)
    settled: set[Axis] = set()
    waiting = []
    for k, axes in enumerate(network.factors):
        if network.product(own[k]) > 1:
            found[k] = _centred(noise[k], [axes.index(a) for a in own[k]])
            settled |= set(_bonds_of(axes, network))
        else:
            waiting.append(k)
    while waiting:
        k = max(waiting, key=lambda k: sum(b in settled for b in _bonds_of(network.factors[k], network)))
        waiting.remove(k)
        bonds = _bonds_of(network.factors[k], network)
        known = [b for b in bonds if b in settled] or bonds
        found[k] = _silenced(noise[k], network.factors[k], known)
        settled |= set(bonds)
    return found


def _centred(noise: Tensor, where: Sequence[int]) -> Tensor:
    """Noise whose average over some axes is 0, its variance kept."""
    count = math.prod(noise.shape[k] for k in where)
    return (noise - noise.mean(tuple(where), keepdim=True)) * math.sqrt(count / (count - 1))


def _silenced(noise: Tensor, axes: Axes, bonds: Sequence[Axis]) -> Tensor:
    """Noise that is 0 where some bonds are all at index 0."""
    quiet = noise.clone()
    quiet[tuple(0 if a in bonds else slice(None) for a in axes)] = 0
    return quiet


def with_path(network: Network, constant: complex, noise: Sequence[Tensor], scale: float) -> Factors:
    """c e + s g for every factor; c^n is the constant, whose sign or phase is in the first factor."""
    size = abs(constant) ** (1 / len(noise))
    found: Factors = []
    for k, (g, axes) in enumerate(zip(noise, network.factors, strict=True)):
        factor = g * scale
        phase = constant / abs(constant) if k == 0 and constant else 1.0
        value = phase * size
        factor[path(axes, network)] += value if factor.is_complex() else value.real
        found.append(factor)
    return found


def _solved(network: Network, noise: Factors, mean: complex, std: float) -> Factors:
    """The s for which the tensor has the deviation, by secants in logarithms: it grows like powers of s."""
    count = len(noise)
    s, slope = _expected_scale(network, noise, mean, std), float(count)
    before: tuple[float, float] | None = None
    for _ in range(60):
        factors = with_path(network, mean, noise, s)
        found = deviation(network, factors)
        if found == 0:
            raise OptionError(
                f"a tensor of shape {network.shape} with ranks {network.ranks} cannot have the deviation "
                f"{std} about {mean}.",
                "Give it more entries or ranks, or std=0.",
            )
        if abs(found / std - 1) < 1e-12:
            break
        if before is not None and before[0] != s and before[1] != found:
            slope = min(max(math.log(found / before[1]) / math.log(s / before[0]), 0.5), 2.0 * count)
        before = s, found
        s *= (std / found) ** (1 / slope)
    return factors


def _expected_scale(network: Network, noise: Factors, mean: complex, std: float) -> float:
    """The s at which the second moment is expected to be |mean|² + std².

    E|X|² = sum over bonds of prod over factors of (c² [on the path] + s²).
    """
    bonds = Network(tuple(_bonds_of(f, network) for f in network.factors), (), network.sizes)
    size = abs(mean) ** (2 / len(noise))
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        squares = [torch.full(s, math.exp(2 * middle), dtype=torch.float64) for s in bonds.shapes]
        for square in squares:
            square[(0,) * square.ndim] += size
        enough = float(contracted(bonds, squares, ())) > abs(mean) ** 2 + std**2
        low, high = (low, middle) if enough else (middle, high)
    return math.exp(low)


def _bonds_of(axes: Axes, network: Network) -> Axes:
    return tuple(a for a in axes if a not in network.modes)


def constant_factors(network: Network, noise: Noise, value: complex, scale: float) -> Factors:
    """Factors that make a constant tensor, and can all be trained.

    Ranks beyond the path hold random numbers, in blocks that meet those of the path nowhere and of which one
    is zero: so they add nothing, but get gradients. For 0 the last factor is zero, and all others are random.
    """
    drawn = _times([noise(shape) for shape in network.shapes], scale)
    if value == 0:
        return [*drawn[:-1], torch.zeros_like(drawn[-1])]
    wide = [tuple(a for a in f if a not in network.modes and network.size_of[a] > 1) for f in network.factors]
    silent = {group[-1] for group in components(wide)}
    blocks = [
        torch.zeros_like(g) if k in silent or not wide[k] else g * _beside(axes, wide[k], g)
        for k, (g, axes) in enumerate(zip(drawn, network.factors, strict=True))
    ]
    return with_path(network, value, blocks, 1.0)


def _beside(axes: Axes, wide: Sequence[Axis], like: Tensor) -> Tensor:
    """1 where all of the wide bonds are past index 0, else 0."""
    mask = torch.zeros_like(like)
    mask[tuple(slice(1, None) if a in wide else slice(None) for a in axes)] = 1
    return mask
