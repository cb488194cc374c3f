"""Factorized linear layer."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.core.errors import LayoutError, ShapeError
from tenfold.core.layout import Layout
from tenfold.core.lower import lower
from tenfold.core.network import Axes
from tenfold.core.search import Application
from tenfold.formats import Format, Ranks, formats
from tenfold.nn.base import FactorizedLayer, Role, check_roles, copied, new_bias, replaces
from tenfold.nn.composite import opening
from tenfold.nn.moments import scaled_to
from tenfold.nn.tensor.factorized import FactorizedTensor

ROWS = 256


@replaces(nn.Linear)
class FactorizedLinear(FactorizedLayer):
    """y = x W^T + b with W held as factors; x is (..., in_features).

    >>> layer = FactorizedLinear(1024, 512, rank=8)
    >>> layer(torch.zeros(7, 1024)).shape, layer.program.kinds
    (torch.Size([7, 512]), ('linear', 'linear'))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: Ranks,
        format: str = "lowrank",
        layout: str = "o i -> o i",
        bias: bool = True,
        example: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Random factors; the dense weight has the deviation of `nn.Linear`'s, 1 / sqrt(3 in_features)."""
        like = torch.empty((), device=device, dtype=dtype)
        bound = Layout.parse(layout).bind((out_features, in_features), "FactorizedLinear")
        std = 1 / math.sqrt(3 * in_features)
        value = scaled_to(formats[format].random(bound.mode_shape, rank, like=like, std=std), std)
        self._build(value, bound, new_bias(out_features, in_features, like) if bias else None, example)

    def _build(
        self, value: Format, layout: Layout, bias: nn.Parameter | None, example: Sequence[int] | None
    ) -> None:
        super().__init__()
        check_roles(layout, [(Role.OUT,), (Role.IN,)], "a linear weight")
        if layout.mode_shape != value.shape:
            raise LayoutError(
                f'layout "{layout}" gives modes {layout.mode_shape}, the factors {value.shape}.'
            )
        self.out_features, self.in_features = layout.shape
        self.layout = layout
        self.rows = math.prod(example[:-1]) if example is not None else ROWS
        network = value.network.refined(layout.mode_groups)
        outputs, inputs = layout.weight
        self.program = lower(Application(network, inputs, outputs, rows=max(1, self.rows)))
        self.weight = FactorizedTensor(value, layout, self.program)
        self.bias = bias

    @staticmethod
    def pattern(dense: nn.Module) -> tuple[Axes, ...]:
        """Outputs, inputs."""
        return ("o",), ("i",)

    @classmethod
    def from_dense(
        cls, dense: nn.Module, value: Format, layout: Layout, example: Sequence[int] | None = None
    ) -> Self:
        """The layer with the bias of `dense` and the weight `value`."""
        layer = cls.__new__(cls)
        layer._build(value, layout, copied(dense.bias), example)  # type: ignore[arg-type]
        return layer.train(dense.training)

    @classmethod
    def from_linear(
        cls, linear: nn.Module, method: Any, ranks: Ranks | None = None, layout: str = "o i -> o i"
    ) -> Self:
        """Decompose a dense layer: `FactorizedLinear.from_linear(linear, TruncatedSVD(), 16)`.

        Hugging Face's `Conv1D` serves as well; its weight is that of `linear_of_conv1d`.
        """
        how = opening(linear)
        return cls.decomposed(how(linear) if how else linear, method, ranks, layout)

    def to_dense(self) -> nn.Linear:
        """The `nn.Linear` that computes the same."""
        weight = self.weight.dense().detach()
        dense = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, device="meta", dtype=weight.dtype
        )
        dense.weight = nn.Parameter(weight, self.weight.requires_grad)
        dense.bias = copied(self.bias)  # type: ignore[assignment]
        return dense.train(self.training)

    def planned(self) -> tuple[int, ...]:
        """(rows, in_features)."""
        return self.rows, self.in_features

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if input.shape[-1] != self.in_features:
            raise ShapeError(
                f"the layer takes {self.in_features} features, but the input is {tuple(input.shape)}."
            )
        output = self.weight.linear(input, self.bias)
        assert output is not None
        return output

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
