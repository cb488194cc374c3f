"""How much arithmetic one forward pass takes."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tenfold.measure.running import Example, device_of, evaluating, move, run
from tenfold.measure.unfused import unfused_kernels


def flops(model: nn.Module, example: Example) -> int:
    """Floating-point operations of one forward pass over the whole `example`, not one input of it.

    A multiplication and an addition are two operations. Convolutions and all products of matrices and
    vectors count, including those of attention, recurrent and bilinear layers.
    Convolutions are counted as written, whatever algorithm the library chooses, and complex numbers as real
    ones. Not counted are elementwise work and sums, biases, outer products, lookups, distances
    (`torch.cdist`), Fourier transforms, solvers and decompositions of `torch.linalg`, and products of
    quantized or sparse arrays. Works on the meta device too.

    >>> flops(nn.Linear(10, 20), torch.ones(3, 10))
    1200
    """
    counter = FlopCounterMode(display=False, custom_mapping=PRODUCTS)
    with evaluating(model), unfused_kernels(), counter:
        run(model, move(example, device_of(model)))
    return int(counter.get_total_flops())


def _matrix_vector(matrix: Sequence[int], vector: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _added_matrix_vector(_added: Sequence[int], matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _added_batch(_added: Sequence[int], left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(left) * right[-1]


def _bilinear(first: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """With the first input, then with the second: 2·n·(in1·in2·out + in2·out)."""
    return 2 * first[0] * (prod(weight) + prod(weight) // weight[1])


# The products that torch's counter does not know; bonds of size one run as those with a vector.
PRODUCTS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.mv: _matrix_vector,
    torch.ops.aten.addmv: _added_matrix_vector,
    torch.ops.aten.dot: _matrix_vector,
    torch.ops.aten.vdot: _matrix_vector,
    torch.ops.aten.addbmm: _added_batch,
    torch.ops.aten._trilinear: _bilinear,
}
