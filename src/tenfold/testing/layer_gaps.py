"""What torch itself does not do, and what there is nothing to try of: each with its reason, in one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tenfold.testing.citizenship import a_factor
from tenfold.testing.layer_family import Case


@dataclass(frozen=True)
class Gap:
    """A law that layers with some options cannot obey, because of torch; `error` is what comes then.

    Where `kernels` is set, that are layers with a kernel in channels-last memory.
    """

    law: str
    layers: tuple[str, ...]
    error: str
    reason: str
    options: Mapping[str, Any] = field(default_factory=dict)
    kernels: bool = False

    def holds(self, law: str, case: Case) -> bool:
        """Whether the law cannot be obeyed by this layer."""
        given = self.options.items() <= case.options.items()
        concerned = law == self.law and case.layer in self.layers and given
        return concerned and (not self.kernels or channels_last(case.make(), law == "prune"))


ATTENTION = ("MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer")
KERNELS = (
    *(f"{kind}{n}d" for kind in ("Conv", "ConvTranspose") for n in (2, 3)),
    "joint Conv2d",
)

GAPS = (
    Gap(
        "complex",
        ATTENTION,
        "not implemented for",
        "torch has no softmax and no LayerNorm of complex numbers",
    ),
    Gap(
        "complex",
        ("RNN",),
        "clamp is not supported",
        "torch has no relu of complex numbers",
        {"nonlinearity": "relu"},
    ),
    Gap(
        "complex",
        ("Bilinear",),
        "_trilinear does not support automatic differentiation",
        "torch's dense layer has no gradient in complex numbers: nothing to compare with",
    ),
    Gap(
        "complex",
        ("Embedding", "joint Embedding"),
        "embedding does not support automatic differentiation",
        "torch's dense layer has no gradient in complex numbers: nothing to compare with",
    ),
    Gap(
        "complex",
        ("EmbeddingBag",),
        "not implemented for|clamp is not supported|scalar types",
        "torch's bag takes no complex numbers, which have no maximum either",
    ),
    Gap(
        "dense_twin",
        ("EmbeddingBag",),
        "has the gradients of its dense twin",
        "on a CPU torch's bag divides the gradient of a row by the count of another index; the factorized "
        "one by its own, as is documented",
        {"scale_grad_by_freq": True},
    ),
    Gap(
        "sample_gradients",
        ("Embedding", "EmbeddingBag"),
        "SparseCPU",
        "`vmap` knows no sparse gradients; take `sparse=False`",
        {"sparse": True},
    ),
    Gap(
        "vector",
        KERNELS,
        "view size is not compatible",
        "`parameters_to_vector` and its inverse take contiguous parameters only, and kernels of several taps "
        "lie in channels-last memory; the same comes of a dense layer that was brought there",
        kernels=True,
    ),
    Gap(
        "prune",
        KERNELS,
        "view size is not compatible",
        "`prune.l1_unstructured` takes contiguous parameters only, as above",
        kernels=True,
    ),
)
"""What layers cannot do, by the names of the laws."""

INAPPLICABLE: tuple[tuple[str, Callable[[Case], bool], str], ...] = (
    (
        "`padded_to` where a layout keeps the vocabulary in one axis, as for low rank",
        lambda case: "padded_to" in case.options and "(v0" not in case.layout,
        "any number of rows fits such a layout",
    ),
)
"""What there is nothing to try of: the name, where it is, and why."""


def gap(law: str, case: Case) -> Gap | None:
    """Why this layer cannot obey a law; None if it can."""
    return next((g for g in GAPS if g.holds(law, case)), None)


def inapplicable(case: Case) -> str:
    """Why there is no such layer; empty if there is."""
    return next((why for _, where, why in INAPPLICABLE if where(case)), "")


def channels_last(layer: nn.Module, first: bool) -> bool:
    """Whether any parameter, or the first factor, is not contiguous."""
    owner, name = a_factor(layer)
    parameters = [owner.get_parameter(name)] if first else list(layer.parameters())
    return any(not p.is_contiguous() for p in parameters)
