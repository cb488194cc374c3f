"""Factorized bilinear layer."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tenfold.core.bilinear import lower_bilinear
from tenfold.core.errors import LayoutError, OptionError, ShapeError
from tenfold.core.layout import Layout
from tenfold.core.network import Axes
from tenfold.formats import Format, Ranks
from tenfold.nn.base import FactorizedLayer, Role, check_roles, copied, new_bias, replaces
from tenfold.nn.convolution.kernel import random_value
from tenfold.nn.execute import join
from tenfold.nn.tensor.factorized import FactorizedTensor

ROWS = 256


@replaces(nn.Bilinear)
class FactorizedBilinear(FactorizedLayer):
    """y_o = Σ x_i W_oij z_j + b_o with W held as factors; x is (..., in1_features), z (..., in2_features).

    The layout names the axes of both inputs with "i": "o i0 i1 -> o i0 i1". Each input meets the factors that
    carry its axes, and what is left of both is joined row by row: for CP two projections to R numbers, their
    product, and a third projection, known as low-rank bilinear pooling.

    Source: Kim et al. 2017, Hadamard product for low-rank bilinear pooling, arXiv:1610.04325; Ben-younes et
    al. 2017 (MUTAN, the Tucker form), arXiv:1705.06676.

    >>> layer = FactorizedBilinear(64, 48, 32, rank=16, format="cp", layout="o i0 i1 -> o i0 i1")
    >>> layer(torch.zeros(7, 64), torch.zeros(7, 48)).shape, layer.program.kinds
    (torch.Size([7, 32]), ('linear', 'linear', 'join', 'linear'))
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        *,
        rank: Ranks | None = None,
        params: int | None = None,
        format: str,
        layout: str,
        bias: bool = True,
        example: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Random factors; the dense weight has the deviation of `nn.Bilinear`'s, 1 / sqrt(3 in1_features).

        `rank` says how large the bonds are, or `params` how many elements the factors may have.
        """
        sizes = (out_features, in1_features, in2_features)
        if min(sizes) < 1:
            raise OptionError(f"features came as {sizes[1:]} and {sizes[0]}.", "Give 1 or more of each.")
        like = torch.empty((), device=device, dtype=dtype)
        bound = Layout.parse(layout).bind(sizes, "FactorizedBilinear")
        value = random_value(bound, format, rank, params, 1 / math.sqrt(3 * in1_features), like)
        self._build(value, bound, new_bias(out_features, in1_features, like) if bias else None, example)

    def _build(
        self, value: Format, layout: Layout, bias: nn.Parameter | None, example: Sequence[int] | None
    ) -> None:
        super().__init__()
        if len(layout.weight) != 3:
            raise LayoutError(
                f'layout "{layout}" does not describe a bilinear weight.', 'Begin it as "o i0 i1".'
            )
        check_roles(layout, [(Role.OUT,), (Role.IN,), (Role.IN,)], "a bilinear weight")
        if layout.mode_shape != value.shape:
            raise LayoutError(
                f'layout "{layout}" gives modes {layout.mode_shape}, the factors {value.shape}.'
            )
        self.out_features, self.in1_features, self.in2_features = layout.shape
        self.layout = layout
        self.rows = ROWS if example is None else math.prod(example[:-1])
        outputs, first, second = layout.weight
        self.first, self.second = layout.extent(first), layout.extent(second)
        network = value.network.refined(layout.mode_groups)
        self.program = lower_bilinear(network, first, second, outputs, max(1, self.rows))
        self.weight = FactorizedTensor(value, layout, self.program)
        self.bias = bias

    @staticmethod
    def pattern(dense: nn.Module) -> tuple[Axes, ...]:
        """Outputs, first inputs, second inputs."""
        return ("o",), ("i0",), ("i1",)

    @classmethod
    def from_dense(
        cls, dense: nn.Module, value: Format, layout: Layout, example: Sequence[int] | None = None
    ) -> Self:
        """The layer with the bias of `dense` and the weight `value`; `example` is a first input's shape."""
        layer = cls.__new__(cls)
        layer._build(value, layout, copied(dense.bias), example)  # type: ignore[arg-type]
        return layer.train(dense.training)

    @classmethod
    def from_bilinear(cls, bilinear: nn.Bilinear, method: Any, ranks: Ranks | None, layout: str) -> Self:
        """Decompose a dense layer: `from_bilinear(bilinear, HOOI(), 16, "o i0 i1 -> o i0 i1")`."""
        return cls.decomposed(bilinear, method, ranks, layout)

    def to_dense(self) -> nn.Bilinear:
        """The `nn.Bilinear` that computes the same."""
        weight = self.weight.dense().detach()
        dense = nn.Bilinear(
            self.in1_features, self.in2_features, self.out_features, self.bias is not None,
            device="meta", dtype=weight.dtype,
        )  # fmt: skip
        dense.weight = nn.Parameter(weight, self.weight.requires_grad)
        dense.bias = copied(self.bias)  # type: ignore[assignment]
        return dense.train(self.training)

    def planned(self) -> tuple[int, ...]:
        """(rows, in1_features)."""
        return self.rows, self.in1_features

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """(..., in1_features), (..., in2_features) -> (..., out_features)."""
        lead, features = input1.shape[:-1], (input1.shape[-1], input2.shape[-1])
        if features != (self.in1_features, self.in2_features) or lead != input2.shape[:-1]:
            raise ShapeError(
                f"the layer takes (..., {self.in1_features}) and (..., {self.in2_features}), "
                f"but the inputs are {tuple(input1.shape)} and {tuple(input2.shape)}."
            )
        rows = input1.reshape(-1, *self.first), input2.reshape(-1, *self.second)
        y = join(self.program, *rows, self.weight.factors()).reshape(*lead, self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.in1_features}, {self.in2_features}, {self.out_features}, bias={self.bias is not None}"
