"""Tensor contraction layer: a matrix for each mode of the input."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.program import Line, Linear, Program, Step, Stored, View
from tenfold.nn.base import Decompose, copied
from tenfold.nn.execute import run
from tenfold.nn.regression.trl import TRL

Ints = tuple[int, ...]


class TCL(nn.Module):
    """y = X ×₁ V₁ ×₂ V₂ ... + b: (*batch, *input_shape) -> (*batch, *output_shape).

    Where `output_shape` has None, the mode is left alone and has no matrix. Matrix k, of shape (output,
    input), is the parameter `factor_k`. They meet the input one after the other, in the order with the least
    arithmetic; their Kronecker product, the matrix of the layer, is never made.

    Source: Kossaifi, Khanna, Lipton, Furlanello, Anandkumar, 'Tensor contraction layers for parsimonious
    deep nets', CVPR workshops 2017, arXiv:1706.00439.

    >>> layer = TCL((64, 7, 7), (16, None, 3))
    >>> layer(torch.zeros(2, 64, 7, 7)).shape, [tuple(f.shape) for f in layer.factors]
    (torch.Size([2, 16, 7, 3]), [(16, 64), (3, 7)])
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int | None],
        *,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Uniform matrices; their Kronecker product has the deviation of an `nn.Linear`'s weight.

        The bias has the shape of the output.

        Raises:
            OptionError: unless both shapes have as many sizes, from 1, and one mode or more gets a matrix.
        """
        super().__init__()
        inputs, outputs = _checked(input_shape, output_shape)
        self.input_shape, self.modes = inputs, tuple(k for k, n in enumerate(output_shape) if n is not None)
        self.output_shape = outputs
        like = torch.empty((), device=device, dtype=dtype)
        share = (1 / 3) ** (1 / len(self.modes))  # of the variance 1 / (3 fan_in)
        for k in self.modes:
            bound = math.sqrt(3 * share / inputs[k])
            self._put(k, like.new_empty(outputs[k], inputs[k]).uniform_(-bound, bound))
        bound = 1 / math.sqrt(math.prod(inputs[k] for k in self.modes))
        self.bias = nn.Parameter(like.new_empty(outputs).uniform_(-bound, bound)) if bias else None
        self.program = contraction_program(inputs, outputs, self.modes)

    def _put(self, k: int, matrix: Tensor) -> None:
        self.register_parameter(f"factor_{k}", nn.Parameter(matrix))

    @property
    def factors(self) -> list[Tensor]:
        """The matrices of the modes that have one."""
        return [getattr(self, f"factor_{k}") for k in self.modes]

    @classmethod
    def from_dense(
        cls,
        dense: nn.Linear,
        input_shape: Sequence[int],
        output_shape: Sequence[int | None],
        method: Decompose,
    ) -> Self:
        """The layer nearest to a linear one between flattened tensors: its best Kronecker product.

        `method` is one for CP, such as `CPALS(ridge=0)`: the matrices are the rank-one approximation of the
        weight, of which each pair of an output and an input axis is a mode (Van Loan & Pitsianis 1993). Modes
        without a matrix count as identities, for which the weight is projected. The bias is taken over.

        Raises:
            ShapeError: if the shapes do not fit the layer.
        """
        inputs, outputs = _checked(input_shape, output_shape)
        if (math.prod(outputs), math.prod(inputs)) != tuple(dense.weight.shape):
            raise ShapeError(
                f"shapes {inputs} and {outputs} came for a weight {tuple(dense.weight.shape)}.",
                "Give shapes with as many elements.",
            )
        weight = dense.weight.detach()
        layer = cls(inputs, output_shape, bias=False, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            found = _matrices(_pairs(weight, inputs, outputs, layer.modes), method)
            for own, matrix in zip(layer.factors, found, strict=True):
                own.copy_(matrix.reshape(own.shape))
        bias = copied(dense.bias)
        layer.bias = None if bias is None else nn.Parameter(bias.detach().view(outputs), bias.requires_grad)
        for factor in layer.factors:
            factor.requires_grad_(dense.weight.requires_grad)
        return layer.train(dense.training)

    def matrix(self) -> Float[Tensor, "outputs inputs"]:
        """The Kronecker product of the matrices, between flattened tensors; differentiable."""
        like, found = self.factors[0], dict(zip(self.modes, self.factors, strict=True))
        product = like.new_ones(1, 1)
        for k, n in enumerate(self.input_shape):
            product = torch.kron(
                product, found[k] if k in found else torch.eye(n, dtype=like.dtype, device=like.device)
            )
        return product

    def to_dense(self) -> TRL:
        """The regression with a dense weight that computes the same."""
        weight = self.matrix().detach()
        dense = nn.Linear(weight.shape[1], weight.shape[0], self.bias is not None, device="meta")
        dense.weight = nn.Parameter(weight, self.factors[0].requires_grad)
        bias = copied(self.bias)
        if bias is not None:
            dense.bias = nn.Parameter(bias.detach().flatten(), bias.requires_grad)
        return TRL.over(dense.train(self.training), self.input_shape, self.output_shape)

    def explain(self) -> str:
        """The steps of the forward pass with their shapes and FLOPs for one input."""
        return self.program.explain()

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Multiply each mode that has a matrix by it."""
        count = len(self.input_shape)
        if tuple(x.shape[-count:]) != self.input_shape:
            raise ShapeError(f"the layer takes (..., {self.input_shape}), but the input is {tuple(x.shape)}.")
        y = run(self.program, x.flatten(-count), self.factors).unflatten(-1, self.output_shape)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        """Shapes; the sizes of modes that are left alone in brackets."""
        shown = [str(n) if k in self.modes else f"[{n}]" for k, n in enumerate(self.output_shape)]
        return f"{self.input_shape}, ({', '.join(shown)}), bias={self.bias is not None}"


def contraction_program(inputs: Ints, outputs: Ints, modes: Ints) -> Program:
    """The steps in the order with the least arithmetic.

    A step on mode k multiplies the size by o / i and costs the size times o. So a goes before b if
    o_a + (o_a / i_a) o_b < o_b + (o_b / i_b) o_a, which is 1/i_a - 1/o_a < 1/i_b - 1/o_b: the modes are
    sorted by 1/i - 1/o.

    >>> program = contraction_program((64, 7, 9), (16, 7, 27), (0, 2))
    >>> program.kinds, program.flops == 2 * 16 * 64 * 7 * 9 + 2 * 27 * 9 * 16 * 7
    (('linear', 'linear'), True)
    """
    order = sorted(modes, key=lambda k: 1 / inputs[k] - 1 / outputs[k])
    steps: list[Step] = []
    lines: list[Line] = []
    sizes = list(inputs)
    for k in order:
        before, count = _shown(sizes), math.prod(sizes)
        steps.append(
            Linear(modes.index(k), View(), math.prod(sizes[:k]), inputs[k], math.prod(sizes[k + 1 :]))
        )
        sizes[k] = outputs[k]
        meets = f"({before}) (o{k}={outputs[k]} i{k}={inputs[k]})"
        lines.append(Line("linear", meets, _shown(sizes), 2 * count * outputs[k], math.prod(sizes)))
    stored = tuple(Stored(((f"o{k}",), (f"i{k}",)), (outputs[k], inputs[k])) for k in modes)
    return Program(tuple(steps), stored, tuple(lines))


def _shown(sizes: Sequence[int]) -> str:
    return " ".join(f"m{k}={n}" for k, n in enumerate(sizes))


def _checked(inputs: Sequence[int], outputs: Sequence[int | None]) -> tuple[Ints, Ints]:
    """The shapes, None replaced by the size of the input."""
    if len(inputs) != len(outputs) or all(n is None for n in outputs):
        raise OptionError(
            f"input_shape {tuple(inputs)} and output_shape {tuple(outputs)} came.",
            "Give an output size, or None, for each input size, and one size at least.",
        )
    whole = tuple(i if o is None else o for i, o in zip(inputs, outputs, strict=True))
    if min(*inputs, *whole) < 1:
        raise OptionError(f"sizes {tuple(inputs)} and {whole} came.", "Give sizes from 1.")
    return tuple(inputs), whole


def _pairs(weight: Tensor, inputs: Ints, outputs: Ints, modes: Ints) -> Tensor:
    """A weight (outputs, inputs) with a mode for each pair of axes; where the mode has no matrix, the mean
    of the diagonal: the projection on multiples of the identity."""
    n = len(inputs)
    tensor = weight.reshape(*outputs, *inputs)
    for k in reversed([k for k in range(n) if k not in modes]):
        tensor = tensor.diagonal(dim1=k, dim2=k + tensor.ndim // 2).mean(-1)
    count = len(modes)
    order = [axis for k in range(count) for axis in (k, count + k)]
    return tensor.permute(order).reshape([outputs[k] * inputs[k] for k in modes])


def _matrices(tensor: Tensor, method: Decompose) -> Sequence[Tensor]:
    """The factors of the best rank-one approximation, one for each mode."""
    if tensor.ndim == 1:
        return [tensor]
    value = method(tensor, 1).value
    modes, factors = value.network.modes, value.network.factors
    if [tuple(a for a in f if a in modes) for f in factors] != [(m,) for m in modes]:
        raise OptionError(
            f"the method gave a {type(value).__name__}, which has not one factor for each mode.",
            "Give a method for CP, such as CPALS(ridge=0).",
        )
    matrices: Sequence[Tensor] = value.factors
    return matrices
