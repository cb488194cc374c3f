"""The decompositions of the literature as rows of a table: a format, a layout, and a method that fits it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from tenfold.core.errors import UnknownNameError, UnsupportedError
from tenfold.core.layout import Layout, balanced
from tenfold.core.network import Axes, Axis, Network
from tenfold.core.registry import Registry
from tenfold.decompose import CPALS, HOOI, TTSVD, Method, SlicedSVD, TruncatedSVD
from tenfold.formats import Format, formats
from tenfold.nn import replacement
from tenfold.nn.tensor.pivoted import elements, least


@dataclass(frozen=True)
class Preset:
    """A format and the layouts in which it serves a layer.

    `layouts` maps the axes of a weight, such as "o i h w", to a layout; axes that end in digits and have no
    size there are split into sizes as equal as their divisors allow. `whole` numbers the modes that are not
    compressed. A convolution whose kernel is a single point is a matrix, and is served as `pointwise` says.
    With `pivoted`, a matrix of low rank is stored as a `PivotedTensor` where that is less.
    """

    name: str
    format: str
    layouts: Mapping[str, str]
    whole: tuple[int, ...] = ()
    pointwise: str | None = None
    pivoted: bool = False

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
        bound = self._bound(self.layouts[axes], layer, name)
        if reason := replacement(layer).refusal(layer, bound):
            raise UnsupportedError(f"preset '{self.name}' cannot serve '{name}': {reason}.", "Leave it out.")
        return Scheme(self, bound)

    def _bound(self, text: str, layer: nn.Module, name: str) -> Layout:
        layout, shape = Layout.parse(text), tuple(layer.get_parameter("weight").shape)
        groups: int = getattr(layer, "groups", 1)
        free = (shape[0] // groups, *shape[1:])
        sizes = dict(layout.sizes)
        for group, size in zip(layout.weight, free, strict=True):
            sizes |= self._split(group, size, sizes, name)
        layout = Layout(layout.weight, layout.modes, tuple(sizes.items()))
        if groups > 1:
            layout = layout.with_axis("g", layout.weight[0][0], groups)
        return layout.bind(shape, name)

    def _split(self, group: Axes, size: int, sizes: Mapping[Axis, int], name: str) -> dict[Axis, int]:
        """Sizes of the axes of a group that have none."""
        given = math.prod(sizes.get(a, 1) for a in group)
        if size % given:
            raise UnsupportedError(
                f"preset '{self.name}' cannot serve '{name}': {given} does not divide its {size} "
                f"({' '.join(group)}).",
                f"Leave it out, or choose a divisor of {size}.",
            )
        rest = [a for a in group if a not in sizes]
        return dict(zip(rest, balanced(size // given, len(rest)), strict=True)) if rest else {}


@dataclass(frozen=True)
class Scheme:
    """A preset with the layout that it has for one layer."""

    preset: Preset
    layout: Layout

    @property
    def stored(self) -> Callable[[Network], int] | None:
        """How many elements are kept of a network, where these are not all that its factors have."""
        return least if self.preset.pivoted else None

    def pivoted(self, ranks: Mapping[Axis, int]) -> bool:
        """Whether a `PivotedTensor` of these ranks is less than plain factors."""
        network = self.preset.format_class.skeleton(self.layout.mode_shape, ranks)
        return self.preset.pivoted and elements(network) < network.numel


METHODS: dict[str, Method[Any]] = {
    "lowrank": TruncatedSVD(),
    "sliced_lowrank": SlicedSVD(),
    "cp": CPALS(tol=1e-4, max_steps=50),
    "tucker": HOOI(),
    "tt": TTSVD(),
}
"""The method for each format, where none is named."""

CONVOLUTIONS = ("w", "h w", "d h w")


class PresetRegistry(Registry[Preset]):
    """Presets by name; of those of low rank, "channel_svd/4" is "channel_svd" in 4 slices of the inputs."""

    def __getitem__(self, name: str) -> Preset:
        row, slash, count = name.partition("/")
        preset = super().__getitem__(row)
        if not slash:
            return preset
        if not count.isdecimal() or int(count) < 1:
            raise UnknownNameError(
                f"preset '{name}' does not say how many slices it has.", f"Write it as '{row}/4'."
            )
        return sliced(preset, int(count))


presets = PresetRegistry("preset")
"""The presets by name."""


def sliced(row: Preset, count: int) -> Preset:
    """A preset of low rank on each of `count` slices of the inputs, all of one rank.

    A convolution becomes one in `count` groups and one that adds up what they find.

    Raises:
        UnsupportedError: if the preset is not of low rank.

    >>> sliced(presets["channel_svd"], 4).layouts["o i h w"]
    'o (i0=4 i1) h w -> o i0 (i1 h w)'
    """
    if row.format != "lowrank" or row.pivoted:
        what = "is pivoted" if row.pivoted else "is not of low rank"
        known = ", ".join(
            p.name for p in map(presets.__getitem__, presets) if p.format == "lowrank" and not p.pivoted
        )
        raise UnsupportedError(f"preset '{row.name}' {what} and has no slices.", f"Slice {known}.")
    if count == 1:
        return row
    parsed = {axes: Layout.parse(text) for axes, text in row.layouts.items()}
    layouts = {axes: str(in_slices(x, count)) for axes, x in parsed.items() if "i" in x.axes}
    pointwise = f"{row.pointwise}/{count}" if row.pointwise else None
    return Preset(f"{row.name}/{count}", "sliced_lowrank", layouts, pointwise=pointwise)


def in_slices(layout: Layout, count: int) -> Layout:
    """The layout of a matrix with its inputs "i" cut in slices "i0", and the modes rows, slices, columns."""
    (columns,) = (g for g in layout.modes if "i" in g)
    (rows,) = (g for g in layout.modes if g != columns)
    weight = tuple(("i0", "i1") if g == ("i",) else g for g in layout.weight)
    return Layout(weight, (rows, ("i0",), tuple("i1" if a == "i" else a for a in columns)), (("i0", count),))


def convolutional(layout: str, kernels: tuple[str, ...] = CONVOLUTIONS) -> dict[str, str]:
    """The layout for convolutions of each order, and for transposed ones; `*` stands for the spatial axes.

    >>> convolutional("o i * -> o i (*)", ("h w",))
    {'o i h w': 'o i h w -> o i (h w)', 'i o h w': 'i o h w -> o i (h w)'}
    """
    ordinary = {k: layout.replace("*", k) for k in kernels}
    turned = {f"i o {k}": inputs_first(text) for k, text in ordinary.items()}
    return {f"o i {k}": text for k, text in ordinary.items()} | turned


def inputs_first(layout: str) -> str:
    """The same modes of a weight whose inputs stand before its outputs, as in transposed convolutions."""
    parsed = Layout.parse(layout)
    outputs, inputs, *taps = parsed.weight
    return str(Layout((inputs, outputs, *taps), parsed.modes, parsed.sizes))


def serving(axes: str) -> list[str]:
    """The presets that have a layout for a weight with these axes."""
    return [name for name in presets if axes in presets[name].layouts]


BILINEAR = {"o i0 i1": "o i0 i1 -> o i0 i1"}
"""The layout that keeps the outputs and both inputs of a bilinear layer apart."""

TABLE = (
    Preset(
        "weight_svd",
        "lowrank",
        {
            "o i": "o i -> o i",
            "v o": "v o -> v o",
            "o i0 i1": "o i0 i1 -> o (i0 i1)",
            **convolutional("o i * -> (o *) i"),
        },
    ),
    Preset("channel_svd", "lowrank", convolutional("o i * -> o (i *)"), pointwise="weight_svd"),
    Preset("spatial_svd", "lowrank", convolutional("o i * -> (i h) (o w)", ("h w",)), pointwise="weight_svd"),
    Preset(
        "spatial_svd_w", "lowrank", convolutional("o i * -> (i w) (o h)", ("h w",)), pointwise="weight_svd"
    ),
    Preset("cp3", "cp", BILINEAR | convolutional("o i * -> o i (*)"), pointwise="weight_svd"),
    Preset("cp4", "cp", convolutional("o i * -> o i *", ("h w",)), pointwise="weight_svd"),
    Preset("tucker2", "tucker", convolutional("o i * -> o i (*)"), (2,), "weight_svd"),
    Preset("tucker", "tucker", BILINEAR | convolutional("o i * -> o i *"), pointwise="weight_svd"),
    Preset("tt_conv", "tt", convolutional("(o0 o1) (i0 i1) * -> (*) (o0 i0) (o1 i1)")),
    Preset(
        "tt_matrix",
        "tt",
        {
            "o i": "(o0 o1) (i0 i1) -> (o0 i0) (o1 i1)",
            "v o": "(v0 v1 v2) (o0 o1 o2) -> (v0 o0) (v1 o1) (v2 o2)",
        },
    ),
)
"""Sources: weight and spatial SVD: Jaderberg et al. 2014, arXiv:1405.3866; channel SVD: Zhang et al. 2015,
arXiv:1505.06798; these with the kernel's other axis first, and in slices: Liebenwein et al. 2021,
arXiv:2107.11442; CP: Lebedev et al. 2015, arXiv:1412.6553; Tucker-2: Kim et al. 2016, arXiv:1511.06530;
TT convolution: Garipov et al. 2016, arXiv:1611.03214; TT matrix: Novikov et al. 2015, arXiv:1509.06569; of
embeddings: Hrinchuk et al. 2020, arXiv:1901.10787."""


def with_pivots(row: Preset) -> Preset:
    """A preset of low rank whose factors are stored as a `PivotedTensor`: the same weights, in less memory.

    Tables of embeddings are left out, of which rows are looked up.

    >>> with_pivots(presets["channel_svd"]).name
    'pivoted_channel_svd'
    """
    pointwise = f"pivoted_{row.pointwise}" if row.pointwise else None
    layouts = {axes: text for axes, text in row.layouts.items() if "v" not in axes}
    return replace(row, name=f"pivoted_{row.name}", layouts=layouts, pointwise=pointwise, pivoted=True)


for _preset in (*TABLE, *(with_pivots(row) for row in TABLE if row.format == "lowrank")):
    presets.add(_preset.name, _preset)

AUTO = ("weight_svd", "channel_svd", "spatial_svd", "spatial_svd_w", "tucker2", "cp3")
"""What "auto" chooses from: chains of two or three convolutions or linear maps, which run fast everywhere."""
