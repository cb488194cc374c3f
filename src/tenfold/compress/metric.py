"""The inner product in which a weight is approximated, from what calibration saw.

To second order the loss rises by ½ tr(G ΔW P ΔWᵀ) when a weight W (outputs × inputs and taps) changes by ΔW:
G is the covariance of the loss gradient at the layer's outputs, P the second moment of its input patches
(K-FAC; Martens & Grosse 2015, Grosse & Martens 2016). A metric says which G and P to take; what they are on
the modes of a layout is in `moments`. P of a table of embeddings is diagonal: how often a row is asked for.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tenfold.compress.calibration.site_statistics import SiteStatistics, is_diagonal
from tenfold.compress.latest import Latest
from tenfold.compress.moments import (
    Moments,
    check_fit,
    firsts,
    known_axes,
    moment_of_mode,
    on_sides,
    output_axes,
)
from tenfold.compress.roots import ModeRoot, mode_root
from tenfold.core.errors import OptionError
from tenfold.core.layout import Layout
from tenfold.core.registry import Registry

latest = Latest()
"""The roots of the site at hand: plans and fits take them for every rank that they try."""


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
        """The two matrices, or stacks of them where a convolution has groups."""

    def sides(self, seen: SiteStatistics, layout: Layout) -> Moments:
        """The moments over the outputs and over the inputs of the weight that the layout describes.

        Raises:
            ShapeError: if the statistics are those of a weight of another shape.
        """
        return latest(seen, (self, layout.weight, layout.sizes), lambda: self._sides(seen, layout))

    def _sides(self, seen: SiteStatistics, layout: Layout) -> Moments:
        found = on_sides(self.moments(seen), layout)
        check_fit(found, layout, seen.name)
        return found

    def roots(self, seen: SiteStatistics, layout: Layout) -> list[ModeRoot]:
        """A root for every mode of the layout, None where all directions count the same.

        Raises:
            ShapeError: if the statistics are those of a weight of another shape.
        """
        return latest(seen, (self, layout), lambda: self._roots(seen, layout))

    def _roots(self, seen: SiteStatistics, layout: Layout) -> list[ModeRoot]:
        moments = self.sides(seen, layout)
        found = [moment_of_mode(group, layout, moments, first) for first, group in firsts(layout)]
        return [mode_root(m, self.damping) for m in found]

    def is_whitened(self, seen: SiteStatistics, layout: Layout) -> bool:
        """Whether the modes of the layout hold each moment whole, so that whitening is exact.

        Axes of size 1, such as the tap of a pointwise convolution, may be in any mode.
        """
        moments, groups = self.sides(seen, layout), [set(g) for g in layout.modes]
        inputs = set() if moments.inputs is None else set(known_axes(layout, moments.inputs))
        outputs = set() if moments.outputs is None else set(output_axes(layout))
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
        """A diagonal over channels."""
        weights = seen.the("input_absolute") ** (2 * self.alpha)
        return Moments(None, weights if weights.ndim == 1 else torch.diag_embed(weights))


@metrics.register("fisher")
@dataclass(frozen=True)
class Fisher(Metric):
    """Every output counts by the mean squared gradient of its row of the weight.

    Source: FWSVD, Hsu et al. 2022, arXiv:2207.00112.
    """

    damping: float = 1e-4
    needs: ClassVar = frozenset({"fisher_rows"})

    def moments(self, seen: SiteStatistics) -> Moments:
        """A diagonal over outputs."""
        return Moments(seen.the("fisher_rows"), None)


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


def input_moment(seen: SiteStatistics, centred: bool) -> Tensor:
    """The moment over (i, *taps) if it was collected, otherwise over i; about the mean if `centred`.

    The diagonal moment of a table is never taken about the mean: no bias takes a shift of all rows up.
    """
    of_patches = seen.patch_moment is not None
    moment = seen.the("patch_moment" if of_patches else "input_covariance")
    if not centred or is_diagonal(moment):
        return moment
    return seen.patch_centred if of_patches else seen.input_centred
