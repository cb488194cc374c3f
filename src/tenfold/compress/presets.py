"""The decompositions of the literature as rows of a table: a format, a layout, and a method that fits it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from tenfold.core.errors import UnsupportedError
from tenfold.core.layout import Layout, balanced
from tenfold.core.registry import Registry
from tenfold.decompose import CPALS, HOOI, TTSVD, Method, TruncatedSVD
from tenfold.formats import Format, formats
from tenfold.nn import replacement


@dataclass(frozen=True)
class Preset:
    """A format and the layouts in which it serves a layer.

    `layouts` maps the axes of a weight, such as "o i h w", to a layout; axes that end in digits are split
    into sizes as equal as their divisors allow. `whole` numbers the modes that are not compressed. A
    convolution whose kernel is a single point is a matrix, and is served as `pointwise` says.
    """

    name: str
    format: str
    layouts: Mapping[str, str]
    whole: tuple[int, ...] = ()
    pointwise: str | None = None

    @property
    def method(self) -> Method[Any]:
        """The method that fits it, unless another is given."""
        return METHODS[self.format]

    @property
    def format_class(self) -> type[Format]:
        """The class of the format."""
        return formats[self.format]

    def __call__(self, layer: nn.Module, name: str) -> "Scheme":
        """What this preset does with a layer; raises UnsupportedError if it cannot serve it."""
        pattern = replacement(layer).pattern(layer)
        kernel = tuple(layer.get_parameter("weight").shape[2:])
        if self.pointwise and kernel and set(kernel) == {1}:
            return presets[self.pointwise](layer, name)
        axes = " ".join(g[-1] for g in pattern)
        if axes not in self.layouts:
            raise UnsupportedError(
                f"preset '{self.name}' cannot serve '{name}', a {type(layer).__name__} "
                f'whose weight has the axes "{axes}".',
                f"Leave it out, or choose one of: {', '.join(serving(axes))}.",
            )
        return Scheme(self, self._bound(self.layouts[axes], layer, name))

    def _bound(self, text: str, layer: nn.Module, name: str) -> Layout:
        layout, shape = Layout.parse(text), tuple(layer.get_parameter("weight").shape)
        groups: int = getattr(layer, "groups", 1)
        free = (shape[0] // groups, *shape[1:])
        sizes = {
            a: n
            for group, size in zip(layout.weight, free, strict=True)
            if len(group) > 1
            for a, n in zip(group, balanced(size, len(group)), strict=True)
        }
        layout = Layout(layout.weight, layout.modes, tuple(sizes.items()))
        if groups > 1:
            layout = layout.with_axis("g", layout.weight[0][0], groups)
        return layout.bind(shape, name)


@dataclass(frozen=True)
class Scheme:
    """A preset with the layout that it has for one layer."""

    preset: Preset
    layout: Layout


METHODS: dict[str, Method[Any]] = {
    "lowrank": TruncatedSVD(),
    "cp": CPALS(tol=1e-4, max_steps=50),
    "tucker": HOOI(),
    "tt": TTSVD(),
}
"""The method for each format, where none is named."""

CONVOLUTIONS = ("w", "h w", "d h w")

presets: Registry[Preset] = Registry("preset")
"""The presets by name."""


def convolutional(layout: str, kernels: tuple[str, ...] = CONVOLUTIONS) -> dict[str, str]:
    """The layout for convolutions of each order; `*` stands for the spatial axes."""
    return {f"o i {k}": layout.replace("*", k) for k in kernels}


def serving(axes: str) -> list[str]:
    """The presets that have a layout for a weight with these axes."""
    return [name for name in presets if axes in presets[name].layouts]


TABLE = (
    Preset("weight_svd", "lowrank", {"o i": "o i -> o i", **convolutional("o i * -> (o *) i")}),
    Preset("channel_svd", "lowrank", convolutional("o i * -> o (i *)")),
    Preset("spatial_svd", "lowrank", convolutional("o i * -> (i h) (o w)", ("h w",)), pointwise="weight_svd"),
    Preset("cp3", "cp", convolutional("o i * -> o i (*)"), pointwise="weight_svd"),
    Preset("cp4", "cp", convolutional("o i * -> o i *", ("h w",)), pointwise="weight_svd"),
    Preset("tucker2", "tucker", convolutional("o i * -> o i (*)"), (2,), "weight_svd"),
    Preset("tucker", "tucker", convolutional("o i * -> o i *"), pointwise="weight_svd"),
    Preset("tt_conv", "tt", convolutional("(o0 o1) (i0 i1) * -> (*) (o0 i0) (o1 i1)")),
    Preset("tt_matrix", "tt", {"o i": "(o0 o1) (i0 i1) -> (o0 i0) (o1 i1)"}),
)
"""Sources: weight and spatial SVD: Jaderberg et al. 2014, arXiv:1405.3866; channel SVD: Zhang et al. 2015,
arXiv:1505.06798; CP: Lebedev et al. 2015, arXiv:1412.6553; Tucker-2: Kim et al. 2016, arXiv:1511.06530;
TT convolution: Garipov et al. 2016, arXiv:1611.03214; TT matrix: Novikov et al. 2015, arXiv:1509.06569."""

for _preset in TABLE:
    presets.add(_preset.name, _preset)
