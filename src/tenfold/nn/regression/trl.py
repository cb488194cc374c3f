"""Tensor regression layer: a linear map between tensors of any shape."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.errors import LayoutError, OptionError, ShapeError
from tenfold.core.layout import Layout
from tenfold.formats import Ranks, formats
from tenfold.nn.base import Decompose, copied
from tenfold.nn.linear import FactorizedLinear
from tenfold.nn.regression.pooling import unpooled
from tenfold.nn.tensor.factorized import FactorizedTensor

Sizes = int | Sequence[int]


class TRL(nn.Module):
    """y = <X, W> + b over all axes of X but the batch's: (*batch, *input_shape) -> (*batch, *output_shape).

    W has the modes (*input_shape, *output_shape) and is held as factors, which X meets one after the other:
    it is never made. The layer is a `FactorizedLinear` between flattened tensors, its submodule `linear`: so
    whole-model functions treat it like every other linear layer. With `rank=None`, and after `to_dense()`,
    that is an `nn.Linear`.

    Source: Kossaifi, Lipton, Kolbeinsson, Khanna, Furlanello, Anandkumar, 'Tensor regression networks', JMLR
    21, 2020, arXiv:1707.08308.

    >>> layer = TRL((64, 7, 7), 10, rank=0.1, format="tucker")
    >>> layer(torch.zeros(2, 64, 7, 7)).shape, layer.weight.value.shape
    (torch.Size([2, 10]), (64, 7, 7, 10))
    >>> layer = TRL((64, 7, 7), (5, 2), rank=8, format="lowrank", modes="(i0 i1 i2) (o0 o1)")
    >>> layer(torch.zeros(64, 7, 7)).shape, layer.linear.program.kinds
    (torch.Size([5, 2]), ('linear', 'linear'))
    """

    linear: nn.Linear | FactorizedLinear

    def __init__(
        self,
        input_shape: Sizes,
        output_shape: Sizes,
        *,
        rank: Ranks | None = None,
        params: int | None = None,
        format: str = "tucker",
        modes: str | None = None,
        bias: bool = True,
        example: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Random factors; the dense weight has the deviation of `nn.Linear`'s between the flattened tensors.

        `modes` says which axes are modes of the tensor that is factored, in which order, as the right side
        of a layout: by default each by itself, "i0 i1 ... o0 o1 ...". The size is given by `rank`, or by
        `params`, the number of elements of the factors to stay within. `example` is the shape of an input,
        for which the order of the steps is planned.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
        """
        inputs, outputs = _sizes(input_shape, "input_shape"), _sizes(output_shape, "output_shape")
        layout = regression_layout(inputs, outputs, modes)
        if rank is not None and params is not None:
            raise OptionError(f"rank={rank} and params={params} came.", "Give one of the two.")
        ends = math.prod(inputs), math.prod(outputs)
        if params is not None:
            rank = formats[format].ranks_within(Layout.parse(layout).bind(ends[::-1]).mode_shape, params)
        linear: nn.Linear | FactorizedLinear
        if rank is None:
            linear = nn.Linear(*ends, bias=bias, device=device, dtype=dtype)
        else:
            linear = FactorizedLinear(
                *ends, rank=rank, format=format, layout=layout, bias=bias,
                example=_flat(example, inputs), device=device, dtype=dtype,
            )  # fmt: skip
        self._build(linear, inputs, outputs)

    def _build(
        self, linear: nn.Linear | FactorizedLinear, inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.input_shape, self.output_shape, self.linear = inputs, outputs, linear

    @classmethod
    def over(
        cls, linear: nn.Linear | FactorizedLinear, input_shape: Sizes, output_shape: Sizes | None = None
    ) -> Self:
        """The regression that a linear layer between flattened tensors makes; the layer becomes its part."""
        inputs = _sizes(input_shape, "input_shape")
        outputs = _sizes(linear.out_features if output_shape is None else output_shape, "output_shape")
        if (math.prod(inputs), math.prod(outputs)) != (linear.in_features, linear.out_features):
            raise ShapeError(
                f"shapes {inputs} and {outputs} came for {linear.in_features} inputs and "
                f"{linear.out_features} outputs.",
                "Give shapes with as many elements.",
            )
        layer = cls.__new__(cls)
        layer._build(linear, inputs, outputs)
        return layer.train(linear.training)

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        input_shape: Sizes,
        method: Decompose,
        ranks: Ranks | None = None,
        *,
        output_shape: Sizes | None = None,
        pool: Sizes | None = None,
        modes: str | None = None,
        example: Sequence[int] | None = None,
    ) -> Self:
        """Decompose the head of a network: `from_linear(head, (512, 7, 7), HOOI(), (64, 1, 1, 10), pool=1)`.

        Without `pool` the linear layer is one over the flattened input. With it, the layer stands after an
        adaptive average pooling of the last axes to `pool` (1, or a size for each axis that is pooled) and a
        flattening: the regression takes the place of all three. It begins as the pooling, and learns another.
        The pooled axes are of low rank, 1 where they are pooled to 1, so it is exact with small ranks there.

        Raises:
            ShapeError: if the shapes do not fit the layer.
        """
        inputs = _sizes(input_shape, "input_shape")
        outputs = _sizes(linear.out_features if output_shape is None else output_shape, "output_shape")
        head = linear if pool is None else unpooled(linear, inputs, _pooled(pool, inputs))
        dense = cls.over(head, inputs, outputs)
        layout = regression_layout(inputs, outputs, modes)
        made = FactorizedLinear.decomposed(dense.linear, method, ranks, layout, _flat(example, inputs))
        made.weight.requires_grad_(linear.weight.requires_grad)
        return cls.over(made, inputs, outputs)

    @property
    def weight(self) -> FactorizedTensor | Tensor:
        """The weight of the linear layer; `tensor()` is the one with the modes of the regression."""
        return self.linear.weight

    @property
    def bias(self) -> Float[Tensor, "*outputs"] | None:
        """The bias in the shape of the output: a view."""
        bias = self.linear.bias
        return None if bias is None else bias.view(self.output_shape)

    def tensor(self) -> Float[Tensor, "*modes"]:
        """The weight, dense and differentiable."""
        weight = self.linear.weight
        matrix = weight.dense() if isinstance(weight, FactorizedTensor) else weight
        return matrix.T.reshape(*self.input_shape, *self.output_shape)

    def to_dense(self) -> "TRL":
        """The regression with a dense weight that computes the same: `linear` is an `nn.Linear`."""
        linear = self.linear
        if isinstance(linear, FactorizedLinear):
            return TRL.over(linear.to_dense(), self.input_shape, self.output_shape)
        dense = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        dense.weight, dense.bias = copied(linear.weight), copied(linear.bias)  # type: ignore[assignment]
        return TRL.over(dense.train(linear.training), self.input_shape, self.output_shape)

    def explain(self) -> str:
        """The steps of the forward pass with their shapes and FLOPs; empty for a dense weight."""
        return self.linear.explain() if isinstance(self.linear, FactorizedLinear) else ""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Contract all axes of the input but the batch's."""
        count = len(self.input_shape)
        if tuple(x.shape[-count:]) != self.input_shape:
            raise ShapeError(f"the layer takes (..., {self.input_shape}), but the input is {tuple(x.shape)}.")
        return self.linear(x.flatten(-count)).unflatten(-1, self.output_shape)

    def extra_repr(self) -> str:
        """Shapes."""
        return f"{self.input_shape}, {self.output_shape}"


def regression_layout(inputs: Sequence[int], outputs: Sequence[int], modes: str | None = None) -> str:
    """The layout of a matrix (outputs, inputs) whose modes are the axes of both shapes, inputs first.

    >>> regression_layout((64, 7), (10,))
    '(o0=10) (i0=64 i1=7) -> i0 i1 o0'
    >>> regression_layout((64, 7), (10,), "(i0 i1) o0")
    '(o0=10) (i0=64 i1=7) -> (i0 i1) o0'
    """
    ends = {"i": inputs, "o": outputs}
    named = {k: " ".join(f"{k}{n}={size}" for n, size in enumerate(sizes)) for k, sizes in ends.items()}
    default = " ".join(f"{k}{n}" for k, sizes in ends.items() for n in range(len(sizes)))
    text = f"({named['o']}) ({named['i']}) -> {default if modes is None else modes}"
    try:
        Layout.parse(text)
    except LayoutError as error:
        raise LayoutError(
            f'modes came as "{modes}".', f'Name each of {default} once, such as "{default}".'
        ) from error
    return text


def _sizes(shape: Sizes, name: str) -> tuple[int, ...]:
    sizes = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if not sizes or min(sizes) < 1:
        raise OptionError(f"{name} came as {shape}.", "Give one size or more, each from 1.")
    return sizes


def _pooled(pool: Sizes, inputs: tuple[int, ...]) -> tuple[int, ...]:
    """A size for each axis that is pooled: all but the first if one number came."""
    sizes = (pool,) * (len(inputs) - 1) if isinstance(pool, int) else tuple(pool)
    if not 0 < len(sizes) <= len(inputs) or any(p < 1 for p in sizes):
        raise OptionError(f"pool came as {pool} for an input {inputs}.", "Give sizes of the last axes.")
    return sizes


def _flat(example: Sequence[int] | None, inputs: tuple[int, ...]) -> tuple[int, int] | None:
    """The shape of the flattened input."""
    if example is None:
        return None
    return math.prod(example[: len(example) - len(inputs)]), math.prod(inputs)
