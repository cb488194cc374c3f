"""Methods that fit any format: which one is an option."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tenfold.core.arrays import Array, namespace
from tenfold.core.contraction import lower_contraction
from tenfold.core.errors import OptionError
from tenfold.core.network import Network
from tenfold.core.noise import normal
from tenfold.core.program import run
from tenfold.decompose.base import Method, methods, norm
from tenfold.decompose.networks.gauge import Factors, balanced
from tenfold.formats import (
    Format,
    General,
    HierarchicalTucker,
    KroneckerSum,
    LowRank,
    SlicedLowRank,
    TensorRing,
    TensorTrain,
    Tucker,
    formats,
)

DIRECT: dict[type[Format], str] = {
    LowRank: "svd",
    SlicedLowRank: "sliced_svd",
    Tucker: "st_hosvd",
    TensorTrain: "tt_svd",
    TensorRing: "tr_svd",
    HierarchicalTucker: "ht_svd",
    KroneckerSum: "kronecker_svd",
}
"""The method without steps that a format starts from."""


@dataclass(frozen=True)
class AnyFormat(Method[Format]):
    """Base class of methods for every format: `kind` is its registered name, or "general"; `static` holds the
    options that belong to the format, such as the tree of "ht" or the graph (`joined`) of "general".

    Raises:
        UnknownNameError: for a format that is not registered.
        OptionError: for "general" without its graph.
    """

    kind: str = "tt"
    static: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.format is General and "joined" not in self.static:
            raise OptionError(
                "a general network came without its graph.",
                'Give the axes of every factor: static={"joined": (("m0", "R"), ("R", "m1"))}.',
            )

    @property
    def format(self) -> type[Format]:  # type: ignore[override]
        """The class of the format."""
        return General if self.kind == "general" else formats[self.kind]

    def _static(self) -> Mapping[str, Any]:
        return {name: _frozen(option) for name, option in self.static.items()}


def _frozen(option: Any) -> Any:
    """Lists as tuples, as they come from JSON."""
    return tuple(_frozen(x) for x in option) if isinstance(option, list | tuple) else option


def dense(network: Network, factors: Factors) -> Array:
    """The represented tensor."""
    return run(lower_contraction(network, network.modes), factors, namespace(*factors))


def direct(
    kind: type[Format], static: Mapping[str, Any], tensor: Array, network: Network, generator: Any
) -> Factors:
    """The factors by the SVD-type method of a format; random ones if it has none.

    Bonds on which it needs less are filled up.
    """
    name = DIRECT.get(kind, "")
    if name not in methods:
        return drawn(tensor, network, generator)
    options = {f.name for f in fields(methods[name])}  # type: ignore[arg-type]
    method = methods[name](**{k: v for k, v in static.items() if k in options})
    return padded(network, method._fit(tensor, network, generator).value.factors, generator)


def drawn(tensor: Array, network: Network, generator: Any) -> Factors:
    """Normal factors, scaled such that the network has the norm of the tensor."""
    factors = tuple(normal(shape, like=tensor, generator=generator) for shape in network.shapes)
    size = norm(dense(network, factors))
    scale = (norm(tensor) / size) ** (1 / len(factors)) if size else 1.0
    return balanced(network, tuple(f * scale for f in factors))


def padded(network: Network, factors: Factors, generator: Any) -> Factors:
    """Factors brought to the shapes of the network: where a bond is shorter, filled up with small noise."""
    return tuple(_padded(f, shape, generator) for f, shape in zip(factors, network.shapes, strict=True))


def _padded(factor: Array, shape: tuple[int, ...], generator: Any) -> Array:
    if tuple(factor.shape) == shape:
        return factor
    xp = namespace(factor)
    size = (
        1e-3 * norm(factor) / max(1, factor.size if isinstance(factor.size, int) else factor.numel()) ** 0.5
    )
    for at, n in enumerate(shape):
        short = n - factor.shape[at]
        if short > 0:
            missing = (*factor.shape[:at], short, *factor.shape[at + 1 :])
            factor = xp.concat([factor, size * normal(missing, like=factor, generator=generator)], axis=at)
    return factor[tuple(slice(n) for n in shape)]
