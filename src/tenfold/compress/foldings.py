"""The ways in which a weight becomes a matrix, whole or in slices: the candidates of ALDS."""

from collections.abc import Iterator, Sequence

from torch import nn

from tenfold.compress.presets import presets
from tenfold.core.errors import OptionError
from tenfold.nn import REPLACEMENTS, replacement

FOLDINGS = ("channel_svd", "spatial_svd_w", "spatial_svd", "weight_svd")
"""Where the kernel goes: to the first layer ("encode"), one axis to each ("split 1" and "split 2": the axis w
to the first, or h), to the last ("decode")."""


def foldings(model: nn.Module, slices: Sequence[int] | None = None) -> tuple[str, ...]:
    """Presets that fold the weights of a model, or of a layer, by every way and number of slices.

    `slices` are the numbers to try, None all divisors of the inputs, as in the source. A number serves the
    layers whose inputs it divides. Where the foldings are one, in linear layers and kernels of one point, one
    stands for all. A rule looks at the singular values of every candidate: with all divisors, in minutes for
    layers of 512 channels.

    Raises:
        OptionError: if a number of slices is below 1.

    Source: Liebenwein et al., NeurIPS 2021 (ALDS), arXiv:2107.11442.

    >>> foldings(nn.Conv2d(6, 8, 3), slices=(1, 2, 4))
    ('channel_svd', 'channel_svd/2', 'spatial_svd_w', 'spatial_svd_w/2', 'spatial_svd', 'spatial_svd/2',
     'weight_svd', 'weight_svd/2')
    >>> foldings(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2)))
    ('weight_svd', 'weight_svd/2', 'weight_svd/3', 'weight_svd/4', 'weight_svd/6', 'weight_svd/8')
    """
    if slices is not None and (low := [n for n in slices if n < 1]):
        raise OptionError(f"numbers of slices came as {low}.", "Give 1 or more.")
    layers = (m for m in model.modules() if type(m) in REPLACEMENTS)
    found = {pair for layer in layers for pair in _of(layer, slices)}
    return tuple(FOLDINGS[row] if n == 1 else f"{FOLDINGS[row]}/{n}" for row, n in sorted(found))


def _of(layer: nn.Module, slices: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """The foldings of one layer by number, each with every number of slices."""
    groups, shape = replacement(layer).pattern(layer), layer.get_parameter("weight").shape
    axes = " ".join(group[-1] for group in groups)
    at = next((k for k, group in enumerate(groups) if group[-1] == "i"), 1)
    shared: int = layer.groups if "g" in groups[at] else 1  # type: ignore[assignment]
    inputs = shape[at] // shared
    point = set(shape[2:]) <= {1}
    for row, name in enumerate(FOLDINGS):
        if axes in presets[name].layouts and (name == "weight_svd" or not point):
            numbers = range(1, inputs + 1) if slices is None else slices
            yield from ((row, n) for n in numbers if inputs % n == 0)
