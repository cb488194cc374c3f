"""The inner product in which a weight is approximated, from what calibration saw.

To second order the loss rises by ½ tr(G ΔW P ΔWᵀ) when a weight W (outputs × inputs and taps) changes by ΔW:
G is the covariance of the loss gradient at the layer's outputs, P the second moment of its input patches
(K-FAC; Martens & Grosse 2015, Grosse & Martens 2016). A layout groups these axes into modes. The moment of a
mode is the part of G ⊗ P on its axes: exact where G and P lie each within one mode, the product of partial
traces where P is spread over several.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tenfold.compress.calibration.statistics import SiteStatistics
from tenfold.compress.latest import Latest
from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.layout import Layout
from tenfold.core.network import Axes, Axis
from tenfold.core.registry import Registry
from tenfold.decompose import Root, root_of
from tenfold.nn.base import Role, role

latest = Latest()
"""The roots of the site at hand: plans and fits take them for every rank that they try."""


@dataclass(frozen=True)
class Moments:
    """What a metric knows of a weight: a matrix over its output axes, and one over its input axes and taps.

    `inputs` is over (i, *taps) or over i alone; None means that all directions count the same.
    """

    outputs: Tensor | None
    inputs: Tensor | None


class Metric(ABC):
    """Base class; a concrete metric is a frozen dataclass of its options."""

    damping: float
    centred: bool = False
    """Whether a shift of the layer's outputs is free: its bias, or a normalisation behind it, takes it up.
    An option of the metrics that know the mean of the inputs."""
    refine: int = 0
    """Steps of L-BFGS in the metric itself, where a layout only allows approximate whitening."""
    needs: ClassVar[frozenset[str]]
    """The statistics that it takes, as `collect` names them."""

    def __post_init__(self) -> None:
        if self.damping < 0 or self.refine < 0:
            raise OptionError(
                f"damping and refine came as {self.damping} and {self.refine}.", "Give 0 or more of each."
            )

    @abstractmethod
    def moments(self, seen: SiteStatistics) -> Moments:
        """The two matrices."""

    def roots(self, seen: SiteStatistics, layout: Layout) -> list[Root | None]:
        """A root for every mode of the layout, None where all directions count the same.

        Raises:
            ShapeError: if the statistics are those of a weight of another shape.
        """
        return latest(seen, (self, layout), lambda: self._roots(seen, layout))

    def _roots(self, seen: SiteStatistics, layout: Layout) -> list[Root | None]:
        moments = self.moments(seen)
        check_fit(moments, layout, seen.name)
        found = [moment_of_mode(group, layout, moments, first) for first, group in firsts(layout)]
        return [None if m is None else root_of(m, self.damping) for m in found]

    def is_whitened(self, seen: SiteStatistics, layout: Layout) -> bool:
        """Whether the modes of the layout hold each moment whole, so that whitening is exact.

        Axes of size 1, such as the tap of a pointwise convolution, may be in any mode.
        """
        moments, groups = self.moments(seen), [set(g) for g in layout.modes]
        inputs = set() if moments.inputs is None else set(_known(layout, moments.inputs))
        outputs = set() if moments.outputs is None else set(layout.weight[0])
        single = {a for a, n in layout.sizes if n == 1}
        return all(any(axes - single <= group for group in groups) for axes in (inputs, outputs))


metrics: Registry[type[Metric]] = Registry("metric")
"""The registered metrics; `metrics["kronecker_fisher"]` is a class."""


@metrics.register("input_covariance")
@dataclass(frozen=True)
class InputCovariance(Metric):
    """Errors count as far as the inputs show them: ‖(W - Ŵ) x‖² on average over the data.

    A matrix of low rank is found by PCA of the outputs, which inverts nothing: `damping` may then be 0, also
    with fewer data than inputs. For other formats 0 gives up the directions which the data never showed.

    Source: Zhang et al. 2015, arXiv:1505.06798; DRONE, Chen et al. 2021; SVD-LLM, arXiv:2403.07378.
    """

    damping: float = 1e-4
    centred: bool = False
    refine: int = 0
    needs: ClassVar = frozenset({"input_covariance", "patch_moment"})

    def moments(self, seen: SiteStatistics) -> Moments:
        """Second moment of patches where it was collected, of channels otherwise."""
        return Moments(None, input_moment(seen, self.centred))


@metrics.register("diagonal_input")
@dataclass(frozen=True)
class DiagonalInput(Metric):
    """Every input channel counts by its mean absolute value to the power 2 `alpha`.

    Source: ASVD, Yuan et al. 2023, arXiv:2312.05821.
    """

    damping: float = 1e-4
    alpha: float = 0.5
    needs: ClassVar = frozenset({"input_absolute"})

    def moments(self, seen: SiteStatistics) -> Moments:
        """A diagonal matrix over channels."""
        return Moments(None, torch.diag(over_groups(seen.the("input_absolute"), 1) ** (2 * self.alpha)))


@metrics.register("fisher")
@dataclass(frozen=True)
class Fisher(Metric):
    """Every output counts by the mean squared gradient of its row of the weight.

    Source: FWSVD, Hsu et al. 2022, arXiv:2207.00112.
    """

    damping: float = 1e-4
    needs: ClassVar = frozenset({"fisher_rows"})

    def moments(self, seen: SiteStatistics) -> Moments:
        """A diagonal matrix over outputs."""
        return Moments(torch.diag(seen.the("fisher_rows")), None)


@metrics.register("kronecker_fisher")
@dataclass(frozen=True)
class KroneckerFisher(Metric):
    """Errors count as far as they move the loss: two-sided, by K-FAC's factors.

    Source: Martens & Grosse 2015, arXiv:1503.05671; Grosse & Martens 2016, arXiv:1602.01407.
    """

    damping: float = 1e-3
    centred: bool = False
    refine: int = 0
    needs: ClassVar = frozenset({"input_covariance", "patch_moment", "gradient_covariance"})

    def moments(self, seen: SiteStatistics) -> Moments:
        """Covariance of the output gradients, and second moment of the inputs."""
        return Moments(seen.the("gradient_covariance"), input_moment(seen, self.centred))


def check_fit(moments: Moments, layout: Layout, name: str) -> None:
    """Raise ShapeError if the moments are over other axes than those of the weight."""
    sizes = dict(layout.sizes)
    outputs, inputs = (product(g, sizes) for g in layout.weight[:2])
    patch = inputs * math.prod(product(g, sizes) for g in layout.weight[2:])
    found = [None if m is None else m.shape[0] for m in (moments.outputs, moments.inputs)]
    if found[0] not in (None, outputs) or found[1] not in (None, inputs, patch):
        raise ShapeError(
            f"statistics of '{name}' are over {found[0]} outputs and {found[1]} inputs, but its weight has "
            f"{outputs} outputs, {inputs} inputs and {patch // inputs} taps.",
            "Collect them of this model.",
        )


def input_moment(seen: SiteStatistics, centred: bool) -> Tensor:
    """The moment over (i, *taps) if it was collected, otherwise over i; about the mean if `centred`.

    Groups of a convolution are averaged: their factors are shared.
    """
    if seen.patch_moment is not None:
        return over_groups(seen.patch_centred if centred else seen.patch_moment, 2)
    return over_groups(seen.input_centred if centred else seen.the("input_covariance"), 2)


def over_groups(value: Tensor, axes: int) -> Tensor:
    """The mean over the groups, if there are any."""
    return value.mean(0) if value.ndim > axes else value


def firsts(layout: Layout) -> list[tuple[bool, Axes]]:
    """The modes, each with whether it is the first that holds input axes; those of slices do not count."""
    seen, slices = False, slice_axes(layout)
    found = []
    for group in layout.modes:
        holds = any(role(a) in (Role.IN, Role.SPATIAL) and a not in slices for a in group)
        found.append((holds and not seen, group))
        seen = seen or holds
    return found


def moment_of_mode(group: Axes, layout: Layout, moments: Moments, first: bool) -> Tensor | None:
    """The moment on the axes of one mode, in their order; None if it is the identity."""
    outputs = tuple(a for a in group if role(a) in (Role.OUT, Role.GROUP))
    inputs = tuple(a for a in group if a not in outputs)
    left = output_part(outputs, layout, moments.outputs)
    right = input_part(inputs, layout, moments.inputs, first)
    if left is None and right is None:
        return None
    sizes = dict(layout.sizes)
    like = left if left is not None else right
    assert like is not None
    left = _identity(outputs, sizes, like) if left is None else left
    right = _identity(inputs, sizes, like) if right is None else right
    both = torch.kron(left, right)
    return in_order(both, (*outputs, *inputs), group, sizes)


def output_part(axes: Axes, layout: Layout, moment: Tensor | None) -> Tensor | None:
    """The output moment if the mode holds all output axes, otherwise None."""
    if moment is None or not axes or set(axes) != set(layout.weight[0]):
        return None
    return in_order(moment, layout.weight[0], axes, dict(layout.sizes))


def input_part(axes: Axes, layout: Layout, moment: Tensor | None, first: bool) -> Tensor | None:
    """The input moment traced over the axes that the mode does not hold.

    The first mode with input axes carries the scale, or one with all that the moment knows; the others are
    divided by the trace, so that the product of all of them has the trace of the whole. Axes that the moment
    does not know count all the same. A mode with only a part of the channels, which its layout splits, has
    no moment; but if the others number slices, it has the mean of theirs.
    """
    if moment is None:
        return None
    slices, sizes = slice_axes(layout), dict(layout.sizes)
    channels = tuple(a for a in layout.weight[1] if a not in slices)
    known = _known(layout, moment)
    kept = tuple(a for a in axes if a in known and a not in slices)
    spread = tuple(a for a in axes if a not in known)
    if not kept or 0 < len(set(channels) & set(kept)) < len(channels):
        return None
    part = traced(moment, known, kept, sizes)
    if not first and len(kept) < len(set(known) - set(slices)):
        part = part / part.diagonal().sum().clamp_min(torch.finfo(part.dtype).tiny)
    if channels[0] in kept:
        part = part / product(slices, sizes)
    if spread:
        part = torch.kron(part, _identity(spread, sizes, part))
    return in_order(part, (*kept, *spread), axes, sizes)


def slice_axes(layout: Layout) -> Axes:
    """The input axes that number slices: all but the last, if they have modes of their own.

    >>> slice_axes(Layout.parse("o (i0 i1) h w -> (o w) i0 (i1 h)"))
    ('i0',)
    """
    outer = layout.weight[1][:-1]
    modes = [group for group in layout.modes if set(group) & set(outer)]
    return outer if all(set(group) <= set(outer) for group in modes) else ()


def _known(layout: Layout, moment: Tensor) -> Axes:
    """The axes that a moment is over: inputs and taps, or the inputs alone."""
    whole = tuple(a for g in layout.weight[1:] for a in g)
    return whole if moment.shape[0] == product(whole, dict(layout.sizes)) else layout.weight[1]


def traced(moment: Tensor, whole: Axes, kept: Axes, sizes: dict[Axis, int]) -> Tensor:
    """The partial trace of a matrix over the axes that are not kept; the kept ones in the given order."""
    extent = [sizes[a] for a in whole]
    spread = moment.reshape(*extent, *extent)
    for k in reversed([k for k, a in enumerate(whole) if a not in kept]):
        spread = spread.diagonal(dim1=k, dim2=k + spread.ndim // 2).sum(-1)
    left = [a for a in whole if a in kept]
    order = [left.index(a) for a in kept]
    size = product(kept, sizes)
    return spread.permute(*order, *(len(left) + k for k in order)).reshape(size, size)


def product(axes: Axes, sizes: dict[Axis, int]) -> int:
    """Product of the sizes of `axes`."""
    return math.prod(sizes[a] for a in axes)


def in_order(matrix: Tensor, axes: Axes, wanted: Axes, sizes: dict[Axis, int]) -> Tensor:
    """A matrix over `axes` with rows and columns in the order `wanted`."""
    if axes == wanted:
        return matrix
    return traced(matrix, axes, wanted, sizes)


def _identity(axes: Axes, sizes: dict[Axis, int], like: Tensor) -> Tensor:
    return torch.eye(product(axes, sizes), dtype=like.dtype, device=like.device)
